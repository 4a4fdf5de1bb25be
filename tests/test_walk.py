"""One tensor's walk through the house, in one process with real bytes. Read it beside ARCHITECTURE.md.

The tensor is the weight of `layer1.0.conv1`. Each step names the file that does it; open them in this order.
"""

from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
from fleet import Fleet
from sklearn.datasets import load_digits

from aggregator import rounds
from aggregator.job import Job
from aggregator.store import Device, Export, Update
from edge.data import Dataset
from edge.outbox import Entry, Outbox
from edge.runtime import ModelSlot, Runtime
from edge.training.task import TrainingTask
from edge.training.trainer import train
from export.reference import IntegerNetwork
from protocol import networks
from protocol.chunks import chunk_count
from protocol.codec.feedback import encode_with_feedback
from protocol.codec.payload import Content, Header, decode
from protocol.messages import ModelOffer, Outcome
from protocol.precision import Precision

NAME = "layer1.0.conv1.weight"
NETWORK = networks.resnet18(width=0.0625, input_shape=(1, 8, 8), classes=10)


def digits() -> Dataset:
    """Forty real pictures, 8×8 as they come."""
    data = load_digits()
    pictures = (data.images[:40, None] * (255 / 16)).astype(np.uint8)
    return Dataset(pictures, data.target[:40].astype(np.int64), tuple(map(str, range(10))), ())


def test_one_tensor_walks_through_the_house(tmp_path: Path) -> None:
    """BF-020 to BF-026 in passing: each is tested on its own elsewhere."""
    # 1. protocol/architecture.py: the tensor's row in the table.
    spec = next(spec for spec in NETWORK.tensors(Precision.parse("W4A8")) if spec.name == NAME)
    assert spec.shape == (4, 4, 3, 3)

    # The aggregator opens a round and offers it; the device fetches the base model by its SHA-256.
    fleet = Fleet(tmp_path, Job(architecture=NETWORK.spec, rounds=1, precisions=(Precision.parse("W4A8"),)))
    (device,) = fleet.connected("pi-07", samples=40)
    fleet.run()
    offer = device.offer()
    before = fleet.model().shared[NAME]
    base = decode(fleet.room.blobs.get(offer.base.hex()))
    assert (base.tensors[NAME] == before).all()

    # 2. edge/training/trainer.py: global weights and local pictures in, float32 delta out.
    task = TrainingTask(offer.architecture, offer.precision, 1, 8, offer.learning_rate, offer.seed, held_out=0.0)
    result = train(task, base.tensors, digits(), lambda _: None)
    delta = result.tensors[NAME]
    assert delta.dtype == np.float32
    assert np.abs(delta).max() > 0

    # 3. protocol/codec: one bit a value, and what was dropped is the next residual.
    header = Header(offer.architecture, offer.recipe, offer.precision, Content.DELTA, result.report.samples)
    payload, residual = encode_with_feedback(header, result.tensors, {}, np.random.default_rng(offer.seed))
    sent = decode(payload).tensors[NAME]
    assert len(np.unique(np.abs(sent))) == 1
    assert np.allclose(sent + residual[NAME], delta, atol=1e-7)
    values = sum(prod(spec.shape) for spec in NETWORK.tensors(Precision.parse("W4A8")))
    assert len(payload) < 4 * values / 10

    # 4. protocol/chunks.py and envelope.py: a signed manifest names the whole, chunks carry it.
    manifest = device.manifest(offer, payload, samples=result.report.samples)
    assert manifest.digest == sha256(payload).digest()
    assert chunk_count(len(payload), manifest.chunk_bytes) > 1

    # 5. edge/outbox.py: on disk before it is sent.
    outbox = Outbox(tmp_path / "outbox", quota_bytes=1 << 20)
    outbox.put(Entry(offer.shard, manifest, payload))
    (entry,) = outbox.pending()
    assert entry.payload == payload

    # 6, 7. link.py carries it (here a function call); aggregator/ingest.py checks, journals and receipts it.
    device.upload(offer, entry.payload, samples=result.report.samples)
    receipt = device.receipt()
    assert (receipt.outcome, receipt.digest) == (Outcome.ACCEPTED, manifest.digest)
    outbox.remove(receipt.task)
    assert list(outbox.pending()) == []
    (journalled,) = fleet.rows(Update)
    assert fleet.room.blobs.get(journalled.digest) == payload

    # 8 to 10. aggregator/rounds.py closes the round, merge.py sums, model.py adds: the next version.
    while rounds.advance(fleet.room):
        fleet.deliver()
    fleet.deliver()
    after = fleet.model().shared[NAME]
    assert np.allclose(after, before + sent, atol=2.0**-30)

    # 11. aggregator/allocate: the device's precision, and why.
    (member,) = fleet.rows(Device)
    assert (member.precision, "W4A8" in member.reason) == ("W4A8", True)

    # 12, 13. export: integers at that precision, equal to the reference in every bit, or it would not be here.
    (export,) = fleet.rows(Export)
    (model_offer,) = device.take(ModelOffer)
    assert model_offer.digest.hex() == export.digest

    # 14. edge/runtime.py: verified, self-tested, swapped in; and it computes what the aggregator's weights say.
    runtime = Runtime(tmp_path / "models")
    slot = ModelSlot(export.digest, export.version, offer.architecture, export.precision)
    runtime.install(fleet.room.blobs.get(export.digest), slot)
    precision = Precision.parse(export.precision)
    reference = IntegerNetwork(NETWORK, precision, fleet.model().tensors(precision))
    pictures = digits().pictures_NCHW
    assert (runtime.infer(pictures) == reference.logits(pictures)).all()
    fleet.room.store.close()
