"""What both sides draw alike, and one tensor in every codec."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.codec.eden import LEVELS
from protocol.codec.recipe import Recipe
from protocol.codec.rotation import blocks, padded_size, signs, stream, unrotated
from protocol.codec.together import Floats, GroupCodec, Halves, Ranges
from protocol.precision import Float32
from protocol.reader import Reader
from vectors import Files, Vector

CODECS: Final = {
    "fp32": ("BF-051", ("fp32",)),
    "half": ("BF-054", ("half",)),
    "sign": ("BF-053", ("sign",)),
    "stosign": ("BF-057", ("stosign",)),
    "uniform": (
        "BF-052",
        (*(f"uniform:{bits}" for bits in range(1, 9)), "uniform:4+huffman", "uniform:8+huffman", "uniform:2+rc"),
    ),
    "topk": (
        "BF-074",
        (
            *("topk:0.1", "topk:0.1+fp32", "topk:0.5+uniform:4", "topk:0.5+uniform:4+huffman"),
            *("topk:0.1+rc", "topk:0.5+uniform:4+rc", "topk:0.9+fp32+rc"),
        ),
    ),
    "stc": ("BF-074", ("stc:0.05", "stc:0.05+rc")),
    "fedzip": ("BF-075", ("fedzip:z=0.2,k=2", "fedzip:z=0.2,k=3", "fedzip:z=0.5,k=5+huffman", "fedzip:z=1,k=16+rc")),
    "eden": (
        "BF-058",
        (
            *("eden:0.01", "eden:0.5", "eden:0.999", "eden:1", "eden:2", "eden:3", "eden:4"),
            *("eden:2+rc", "eden:4+huffman"),
        ),
    ),
    "step": (
        "BF-076",
        (
            *("step:0.3", "step:0.005", "step:0.00000001", "step:10", "ef+step:0.3", "ef+step:0.005", "ef+step:10"),
            *("step:0.3+huffman", "ef+step:0.005+huffman", "step:0.3+rc", "ef+step:0.1+rc"),
        ),
    ),
}
"""Requirement and recipes, by file."""
ROTATED: Final = "eden"
"""Sums of floats in any order: values are equal within a bound, and an encoder may choose another code at a border."""
PRECISION: Final = 2.0**-20
"""Of a rotation's sums, against the norm of what is rotated (BF-059)."""
SMALLEST: Final = 2.0**-126
"""Below, float32 gets coarse."""
SEED: Final = 0x123456789ABCDEF0
SEEDS: Final = (0, 1, 7, 2**32 - 1, SEED, 2**64 - 1)
FAR: Final = 100_000
GROUPS: Final[dict[str, GroupCodec]] = {"fp32": Floats(), "uniform:8": Ranges(), "half": Halves()}


def hexadecimal(values_N: npt.ArrayLike) -> str:
    """Little-endian float32."""
    return np.asarray(values_N, dtype="<f4").tobytes().hex()


def streams() -> Vector:
    """Words of streams as numbers of sixteen hexadecimal digits."""
    vectors = [
        {
            "seed": f"{seed:016x}",
            "words": _words(stream(seed, 0, 8)),
            "word 100000": _words(stream(seed, FAR, FAR + 1))[0],
        }
        for seed in SEEDS
    ]
    return {"requirement": "BF-059", "vectors": vectors}


def _words(words: npt.NDArray[np.uint64]) -> list[str]:
    return [f"{word:016x}" for word in words.tolist()]


def rotations() -> Vector:
    """Whole tensors of rotated values on their way back, block by block."""
    return {"requirement": "BF-059", "vectors": [_rotation(count) for count in (1, 64, 65, 200, 448, 4200)]}


def _rotation(count: int) -> Vector:
    rotated_N = np.sin(np.arange(1, padded_size(count) + 1)).astype(np.float32)
    values_N, sizes = np.empty_like(rotated_N), []
    for part, size in blocks(count):
        sizes += [size] * ((part.stop - part.start) // size)
        signs_BD = signs(SEED, part).reshape(-1, size)
        exact_BD = unrotated(rotated_N[part].reshape(-1, size).astype(np.float64), signs_BD)
        values_N[part] = exact_BD.reshape(-1).astype(np.float32)
    facts: Vector = {"count": count, "seed": f"{SEED:016x}", "blocks": sizes}
    bound = PRECISION * float(np.linalg.norm(rotated_N)) + SMALLEST
    return facts | {"rotated": hexadecimal(rotated_N), "values": hexadecimal(values_N[:count]), "bound": bound}


def inputs() -> Vector:
    """The tensors that are encoded, by name."""
    return {"vectors": [{"name": name, "values": hexadecimal(values_N)} for name, values_N in tensors().items()]}


def tensors() -> dict[str, Float32]:
    """Awkward ones, and some as trainers make them."""
    rng = np.random.default_rng(11)
    return {
        "one": np.array([3.5], dtype=np.float32),
        "one zero": np.zeros(1, dtype=np.float32),
        "zeros": np.zeros(17, dtype=np.float32),
        "equal": np.full(9, -2.25, dtype=np.float32),
        "tiny": np.full(5, 1e-40, dtype=np.float32),
        "mixed": np.array([1e-30, -1e30, 0.0, -0.0, 7.0], dtype=np.float32),
        "one of many": np.eye(1, 300, 299, dtype=np.float32)[0],
        "sine of 64": np.sin(np.arange(1, 65)).astype(np.float32),
        "sine of 65": np.sin(np.arange(1, 66)).astype(np.float32),
        "normal": (0.01 * rng.normal(size=203)).astype(np.float32),
    }


def codec(family: str) -> Vector:
    """Every tensor in every recipe of a family."""
    requirement, recipes = CODECS[family]
    chosen = [(recipe, name, values_N) for recipe in recipes for name, values_N in tensors().items()]
    if family == ROTATED:
        chosen.append(("eden:1", "sine of 4161", np.sin(np.arange(1, 4162)).astype(np.float32)))
    return {"requirement": requirement, "vectors": [_coded(*each) for each in chosen]}


def _coded(recipe: str, name: str, values_N: Float32) -> Vector:
    made = Recipe.parse(recipe).weights
    data = bytes(made.encode(values_N, np.random.default_rng(0), SEED))
    decoded_N = made.read(Reader(data), values_N.size, SEED).values()
    facts: Vector = {"name": name, "recipe": recipe, "count": values_N.size, "seed": f"{SEED:016x}"}
    facts |= {"bytes": data.hex(), "values": hexadecimal(decoded_N)}
    return facts | {"bound": _bound(data, values_N.size)} if ROTATED in recipe else facts


def _bound(data: bytes, count: int) -> float:
    """What values may differ by: 2⁻²⁰ of the norm of the largest block, if all its codes were the largest one."""
    sizes = np.concatenate([np.full((part.stop - part.start) // size, size) for part, size in blocks(count)])
    scales = np.frombuffer(data[: 4 * sizes.size], dtype="<f4").astype(np.float64)
    return float((scales * np.sqrt(sizes)).max()) * float(LEVELS[4].max()) * PRECISION + SMALLEST


def together() -> Vector:
    """Small tensors that travel together."""
    sizes = ([1], [3], [1, 1, 1], [4, 8, 1, 17], [64, 64, 10])
    return {"requirement": "BF-055", "vectors": [_group(name, each) for name in GROUPS for each in sizes]}


def _group(name: str, sizes: Sequence[int]) -> Vector:
    sizes_S = np.array(sizes, dtype=np.int64)
    values_N = np.sin(np.arange(1, sizes_S.sum() + 1)).astype(np.float32)
    values_N[-1] *= 1000
    data = bytes(GROUPS[name].encode(values_N, sizes_S, np.random.default_rng(0)))
    decoded_N = GROUPS[name].read(Reader(data), sizes_S).values()
    return {"codec": name, "sizes": list(sizes), "bytes": data.hex(), "values": hexadecimal(decoded_N)}


FILES: Final[Files] = {
    "2-tensors/stream.json": streams,
    "2-tensors/rotation.json": rotations,
    "2-tensors/inputs.json": inputs,
    **{f"2-tensors/{family}.json": partial(codec, family) for family in CODECS},
    "2-tensors/together.json": together,
}
