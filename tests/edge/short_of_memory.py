"""A real process at the limit of its memory, which is set once everything is imported and, for `install`, at work.

short_of_memory.py MEGABYTES install FOLDER SPEC    large.onnx is offered where small.onnx runs
short_of_memory.py MEGABYTES infer ...              bitfleet-edge infer with these arguments
"""

import resource
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import urllib3

from edge.cli import main
from edge.downloads import Downloads
from edge.installer import Installer
from edge.meters.modelled import ModelledMeter
from edge.runtime import Runtime
from edge.session import ModelRefused
from protocol import networks
from protocol.messages import ModelOffer

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def limit(megabytes: int) -> None:
    """Leave this much beyond what the process has."""
    status = Path("/proc/self/status").read_text().splitlines()
    size_bytes = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmSize:"))
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes + (megabytes << 20), resource.RLIM_INFINITY))


def install(megabytes: int, folder: Path, spec: str) -> None:
    """Print the refusal; the model before must answer as it did, and the new one come once there is memory again."""
    downloads = Downloads(folder / "downloads", "http://127.0.0.1:9", urllib3.PoolManager())
    installer = Installer(Runtime(folder / "models"), downloads, ModelledMeter())
    offers = []
    for version, name in enumerate(("small.onnx", "large.onnx"), 1):
        data = (folder / name).read_bytes()
        downloads.keep(sha256(data).digest(), data)
        offers.append(ModelOffer(version, spec, "W8A8", sha256(data).digest(), len(data), "it fits"))
        del data
    installer.install(offers[0])
    shape = networks.parse(spec).input_shape
    pictures_NCHW = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    logits_NC = installer.runtime.infer(pictures_NCHW)
    limit(megabytes)
    try:
        installer.install(offers[1])
    except ModelRefused as error:
        print(error)
    assert installer.version == 1
    assert np.array_equal(installer.runtime.infer(pictures_NCHW), logits_NC)
    resource.setrlimit(resource.RLIMIT_AS, UNLIMITED)
    installer.install(offers[1])
    assert installer.version == 2


if sys.argv[2] == "install":
    install(int(sys.argv[1]), Path(sys.argv[3]), sys.argv[4])
else:
    limit(int(sys.argv.pop(1)))
    main()
