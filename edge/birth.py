"""What a device says of itself on every connect."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil

from edge.board import board_name
from edge.config import Config
from edge.data import Dataset, load
from edge.meters.base import Accuracy, Description
from edge.work import TRAINABLE, can_train
from protocol import networks
from protocol.codec.recipe import STAGES
from protocol.messages import Birth, Cost

_MIN_PACKET_BYTES = 1024
"""The smallest that a birth can state; a broker below it is of no use anyway."""
_MAX_PACKET_BYTES = 1 << 28
_ANY_SHAPE = (1, 32, 32)
"""Pictures are counted before the first offer says what network they are for."""


def describe(
    config: Config,
    meter: Description,
    *,
    session: int,
    samples: int,
    model_digest: bytes,
    costs: tuple[Cost, ...],
    packet_bytes: int,
) -> Birth:
    """The birth of this session."""
    return Birth(
        session=session,
        version=agent_version(),
        processor=processor()[:128],
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        trains=samples > 0 and can_train(),
        codecs=STAGES,
        precisions=TRAINABLE,
        meters=() if meter.accuracy is Accuracy.MODEL else (meter.name,),
        samples=samples,
        budget_j_per_day=config.budget_j_per_day,
        inferences_per_day=config.inferences_per_day,
        model_digest=model_digest,
        costs=costs,
        packet_bytes=min(max(packet_bytes, _MIN_PACKET_BYTES), _MAX_PACKET_BYTES),
        max_latency_ms=config.max_latency_ms,
    )


def load_pictures(config: Config, architecture: str) -> Dataset:
    """The device's pictures, as the fleet's network sees them.

    Args:
        config: names their source, which must be set, and the fleet's classes.
        architecture: spec of the fleet's network, empty while it is not known.

    Raises:
        DataError: nothing usable is there.
    """
    assert config.data is not None
    if not architecture:
        return load(config.data, input_shape=_ANY_SHAPE, classes=config.classes)
    network = networks.parse(architecture)
    return load(config.data, input_shape=network.input_shape, classes=config.classes or network.classes)


def agent_version() -> str:
    """The installed version, or that there is none."""
    try:
        return version("bitfleet")
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The board's own name where it has one, else the processor's."""
    return board_name() or platform.processor() or platform.machine()
