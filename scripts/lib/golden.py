"""Writes tests/golden/v1: sealed messages and payloads that every later version must read.

Files are written only where missing; a changed layout therefore shows as a failing test, never as a changed file.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from protocol.architecture import Architecture, Role, Tensors
from protocol.codec.payload import Content, Header, Payload, decode, encode
from protocol.codec.recipe import DEFAULT_RECIPE
from protocol.envelope import Stamp, seal
from protocol.messages import (
    Birth,
    Cost,
    Decline,
    DeclineReason,
    EnergySource,
    Manifest,
    Message,
    ModelOffer,
    Need,
    Offer,
    Outcome,
    Receipt,
    RoundState,
    ServerState,
    State,
    Status,
    Telemetry,
)
from protocol.networks import resnet18
from protocol.precision import Precision
from protocol.signing import SigningKey

FOLDER = Path(__file__).parent.parent.parent / "tests" / "golden" / "v1"
NETWORK = resnet18(width=0.0625, input_shape=(1, 8, 8), classes=3)
KEY = SigningKey(bytes(range(32)))
TOPIC, SENDER, STAMP, TIME_MS = "bitfleet/v1/home/d/pi-07/golden", "pi-07", Stamp(3, 14), 1_700_000_000_000
DIGEST = bytes(range(32))
FIRST_RECIPES = (
    *("fp32", "half", "sign", "ef+sign", "stosign", *(f"uniform:{bits}" for bits in range(1, 9))),
    *("uniform:4+huffman", "uniform:4+rc", "eden:0.5", "eden:1", "eden:2", "eden:3", "eden:4", "eden:4+huffman"),
    *(
        "ef+eden:2+rc",
        "topk:0.1",
        "topk:0.1+fp32",
        "topk:0.1+uniform:4",
        "dgc+topk:0.1+rc",
        "ef+stc:0.05",
        "stc:0.05+rc",
    ),
    *("fedzip:z=0.2,k=3", "fedzip:z=0.2,k=5+huffman", "fedzip:z=0.2,k=3+rc"),
)
"""What the first files are of."""
LATER_RECIPES = {"step": ("step:0.3", "step:0.005+huffman", "ef+step:0.1+rc", "ef+step:10")}
"""What came later, by what their files of facts are called after, since files that exist stay."""
RECIPES = (*FIRST_RECIPES, *(recipe for recipes in LATER_RECIPES.values() for recipe in recipes))
"""One for every layout there is."""
DRAWN = ("uniform", "stosign", "step")
"""In recipes whose bytes depend on a generator of random numbers, unless in feedback."""
ROTATED = "eden"
"""In recipes whose sums of floats depend on the processor's order."""

MESSAGES: tuple[Message, ...] = (
    State(Status.ONLINE, 7),
    Birth(
        session=7,
        version="0.1.0",
        processor="Cortex-A76",
        cores=4,
        memory_bytes=8 << 30,
        trains=True,
        codecs=("fp32", "sign"),
        precisions=("W8A8", "W1A8"),
        meters=("modelled",),
        samples=250,
        budget_j_per_day=40.0,
        inferences_per_day=75_000,
        model_digest=b"",
        costs=(Cost("W8A8", 6.8, 0.4, EnergySource.MODELLED),),
        packet_bytes=65_536,
    ),
    Telemetry("training", "t1", 0.5, 10, 20, 3, 1.5, "round 4"),
    ServerState(online=True, fleet="home"),
    RoundState(4, "collecting", 3),
    Offer(
        task="t1",
        round=4,
        architecture=NETWORK.spec,
        precision="W4A8",
        recipe=DEFAULT_RECIPE,
        base=DIGEST,
        base_bytes=1000,
        shard="s0",
        nonce=bytes(16),
        deadline_s=60.0,
        epochs=2,
        batch=32,
        learning_rate=0.05,
        seed=11,
        calibrate_steps=True,
    ),
    Decline("t1", DeclineReason.THROTTLED, "82 °C, limit 80", 30.0),
    Manifest("t1", bytes(16), 4, DIGEST, DIGEST, 1000, 65_536, 250, 0.25, 0.9, 12.5, 800.0, EnergySource.MODELLED),
    Need("t1", b"\x05"),
    Receipt("t1", 4, DIGEST, Outcome.REFUSED, "late", "round 4 is merging"),
    ModelOffer(4, NETWORK.spec, "W4A8", DIGEST, 12_345, "W4A8 fits"),
)


def tensors(network: Architecture, *precisions: Precision) -> Tensors:
    """Values without a random generator, so that any language can make them: sin(i + 1) of the running index."""
    result, start = {}, 0
    for spec in network.tensors(*precisions):
        values = np.sin(np.arange(start + 1, start + spec.size + 1)).astype(np.float32).reshape(spec.shape)
        result[spec.name] = np.abs(values) if spec.role is Role.VARIANCE else values
        start += spec.size
    return result


def digest(payload: Payload) -> str:
    """SHA-256 of all values in wire order, as little-endian float32."""
    values = (payload.tensors[spec.name].astype("<f4").tobytes() for spec in payload.header.specs)
    return sha256(b"".join(values)).hexdigest()


def payload_name(recipe: str) -> str:
    """The file of a recipe's golden payload."""
    return f"payload-{recipe.replace(':', '-').replace(',', '-').replace('=', '')}.bin"


def main() -> None:
    """Write what is missing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for message in MESSAGES:
        data = seal(message, topic=TOPIC, sender=SENDER, stamp=STAMP, time_ms=TIME_MS, key=KEY)
        _write(f"message-{type(message).__name__.lower()}.bin", data)
    for recipe in RECIPES:
        header = Header(NETWORK.spec, recipe, "W4A8", Content.DELTA, 40, seed=7)
        data = encode(header, tensors(NETWORK, Precision.parse("W4A8")), np.random.default_rng(0))
        _write(payload_name(recipe), data)
    common = {
        "public_key": KEY.public.raw.hex(),
        "topic": TOPIC,
        "sender": SENDER,
        "architecture": NETWORK.spec,
    }
    _write("facts.json", _as_json(common | {"decoded": _decoded(FIRST_RECIPES)}))
    for name, recipes in LATER_RECIPES.items():
        _write(f"facts-{name}.json", _as_json({"decoded": _decoded(recipes)}))


def facts() -> dict[str, Any]:
    """What the files of facts say, as one."""
    found: dict[str, Any] = json.loads((FOLDER / "facts.json").read_text())
    for name in LATER_RECIPES:
        found["decoded"] |= json.loads((FOLDER / f"facts-{name}.json").read_text())["decoded"]
    return found


def _as_json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


def is_drawn(recipe: str) -> bool:
    """Whether its bytes depend on a generator of random numbers."""
    return any(stage in recipe for stage in DRAWN) and not recipe.startswith("ef+")


def _decoded(recipes: Sequence[str]) -> dict[str, str]:
    """Digests of what lies in the files, by recipe."""
    return {
        recipe: digest(decode((FOLDER / payload_name(recipe)).read_bytes()))
        for recipe in recipes
        if ROTATED not in recipe
    }


def _write(name: str, data: bytes) -> None:
    path = FOLDER / name
    if path.exists():
        print(f"kept     {name}")
        return
    path.write_bytes(data)
    print(f"written  {name}  {len(data)} bytes")
