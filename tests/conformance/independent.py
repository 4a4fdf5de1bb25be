"""A second decoder of payloads, written from protocol/SPEC.md and the kit's tables alone.

Python's standard library and nothing of this repository: it proves that the specification is enough, and shows in the
plainest code there is what a decoder in another language does. Numbers behind BF are requirements of SPEC.md. It is
slow and keeps everything in lists; whoever wants speed reads `protocol/codec`.
"""

import re
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from math import ceil, isfinite, prod, sqrt
from typing import Any, TypeVar

T = TypeVar("T")
Row = tuple[str, list[int], str]
Table = dict[str, Any]
Tensors = dict[str, list[float]]
Words = dict[tuple[int, int], int]

WORD = 2**64 - 1
CODES = {"incomplete", "malformed", "unsupported", "not-finite"}


class Refused(Exception):
    """Bytes that a requirement forbids; `code` is the refusal of section 1."""

    def __init__(self, code: str, why: str) -> None:
        assert code in CODES
        super().__init__(f"{code}: {why}")
        self.code = code


class Bytes:
    """What is left of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Refused("incomplete", f"{count} bytes wanted, {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def floats(self, count: int) -> list[float]:
        values = struct.unpack(f"<{count}f", self.take(4 * count))
        return [finite(value) for value in values]

    def end(self) -> None:
        if self.at < len(self.data):
            raise Refused("malformed", f"{len(self.data) - self.at} bytes too many")


def finite(value: float) -> float:
    """The float32 nearest to a value (BF-043)."""
    try:
        rounded = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        rounded = float("inf")
    if not isfinite(rounded):
        raise Refused("not-finite", f"{value}")
    return rounded


Coder = Callable[[Bytes, int, int], list[int]]
Codec = Callable[[Bytes, int, int], list[float]]
Group = Callable[[Bytes, list[int]], list[list[float]]]

# --- msgpack, as far as a header needs it ---


def msgpack(source: Bytes) -> Any:
    """One value: nil, a boolean, a number, text, bytes, a list or a map."""
    kind = source.take(1)[0]
    if kind < 0x80 or kind >= 0xE0:
        return kind if kind < 0x80 else kind - 256
    if kind < 0x90:
        return msgpack_map(source, kind & 15)
    if kind < 0xA0:
        return [msgpack(source) for _ in range(kind & 15)]
    if kind < 0xC0:
        return msgpack_text(source, kind & 31)
    fixed = {0xC0: None, 0xC2: False, 0xC3: True}
    if kind in fixed:
        return fixed[kind]
    numbers = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
    numbers |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    if kind in numbers:
        return big_endian(source, numbers[kind])
    lengths = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDD: ">I"}
    lengths |= {0xDE: ">H", 0xDF: ">I"}
    if kind not in lengths:
        raise Refused("malformed", f"msgpack byte {kind:02x}")
    length = big_endian(source, lengths[kind])
    if kind <= 0xC6:
        return source.take(length)
    if kind <= 0xDB:
        return msgpack_text(source, length)
    return msgpack_map(source, length) if kind >= 0xDE else [msgpack(source) for _ in range(length)]


def big_endian(source: Bytes, layout: str) -> Any:
    return struct.unpack(layout, source.take(struct.calcsize(layout)))[0]


def msgpack_text(source: Bytes, length: int) -> str:
    try:
        return source.take(length).decode()
    except UnicodeDecodeError as error:
        raise Refused("malformed", str(error)) from error


def msgpack_map(source: Bytes, length: int) -> dict[Any, Any]:
    result = {}
    for _ in range(length):
        key = msgpack(source)
        if not isinstance(key, int | str | bytes):
            raise Refused("malformed", f"a map with key {key!r}")
        result[key] = msgpack(source)
    return result


# --- coders: codes below K ---


def varint(source: Bytes, limit: int) -> int:
    """BF-073."""
    number = shift = 0
    while True:
        byte = source.take(1)[0]
        number |= (byte & 127) << shift
        if number > limit or shift > 63:
            raise Refused("malformed", f"number {number} above {limit}")
        if byte < 128:
            break
        shift += 7
    if byte == 0 and shift:
        raise Refused("malformed", f"number {number} longer than needed")
    return number


def bits_of(data: bytes) -> list[int]:
    """The bits of a stream, lowest of each byte first."""
    return [byte >> bit & 1 for byte in data for bit in range(8)]


def stream_of_bits(source: Bytes, count: int) -> list[int]:
    """`count` bits, those behind them zero (BF-050)."""
    bits = bits_of(source.take(-(-count // 8)))
    if any(bits[count:]):
        raise Refused("malformed", "bits set behind the last one")
    return bits[:count]


def packed(source: Bytes, count: int, bits: int) -> list[int]:
    """BF-050, by the number of bits."""
    stream = stream_of_bits(source, count * bits)
    return [sum(stream[i + j] << j for j in range(bits)) for i in range(0, count * bits, bits)]


def bitpack(source: Bytes, count: int, symbols: int) -> list[int]:
    """BF-050, by the number of symbols."""
    codes = packed(source, count, max(1, (symbols - 1).bit_length()))
    if any(code >= symbols for code in codes):
        raise Refused("malformed", f"a code of {symbols} or more")
    return codes


def golomb(source: Bytes, count: int, symbols: int) -> list[int]:
    """BF-070."""
    number = varint(source, count)
    if number == 0:
        return [0] * count
    low_bits = source.take(1)[0]
    if low_bits > 31:
        raise Refused("malformed", f"{low_bits} low bits")
    gaps = golomb_heads(source, count, number)
    low = stream_of_bits(source, number * low_bits)
    gaps = [
        (head << low_bits) + sum(low[bit * number + i] << bit for bit in range(low_bits)) for i, head in enumerate(gaps)
    ]
    values = [1] * number
    if symbols > 2:
        values = [code + 1 for code in bitpack(source, number, symbols - 1)]
    codes, position = [0] * count, -1
    for gap, value in zip(gaps, values, strict=True):
        position += gap + 1
        if position >= count:
            raise Refused("malformed", f"a code at {position} of {count}")
        codes[position] = value
    return codes


def golomb_heads(source: Bytes, count: int, number: int) -> list[int]:
    """Ones of each gap, ended by a zero."""
    data = source.take(varint(source, (2 * count + 7) // 8))
    heads, ones = [], 0
    for place, bit in enumerate(bits_of(data)):
        if bit:
            ones += 1
            continue
        heads.append(ones)
        ones = 0
        if len(heads) == number:
            if any(bits_of(data)[place + 1 :]) or (place // 8 + 1) != len(data):
                raise Refused("malformed", "more behind the last gap")
            return heads
    raise Refused("malformed", f"{len(heads)} gaps of {number}")


def huffman(source: Bytes, count: int, symbols: int) -> list[int]:
    """BF-071."""
    table = source.take(-(-symbols // 2))
    lengths = [half for byte in table for half in (byte & 15, byte >> 4)]
    if any(lengths[symbols:]):
        raise Refused("malformed", "a length behind the last symbol")
    lengths = lengths[:symbols]
    there = [symbol for symbol in range(symbols) if lengths[symbol]]
    if count == 0 and there:
        raise Refused("malformed", f"{len(there)} symbols for no codes")
    if count == 0:
        return []
    if any(lengths[symbol] == 15 for symbol in there):
        if len(there) > 1:
            raise Refused("malformed", "one that is alone, and others")
        return there * count
    if sum(2 ** (14 - lengths[symbol]) for symbol in there) != 2**14:
        raise Refused("malformed", "no complete code")
    return huffman_codes(source, count, words_of(lengths))


def words_of(lengths: list[int]) -> Words:
    """(length, word) → symbol."""
    words, word = {}, 0
    for length in range(1, 15):
        word <<= 1
        for symbol, its_length in enumerate(lengths):
            if its_length == length:
                words[length, word] = symbol
                word += 1
    return words


def huffman_codes(source: Bytes, count: int, words: Words) -> list[int]:
    data = source.take(varint(source, (14 * count + 7) // 8))
    stream = [byte >> bit & 1 for byte in data for bit in range(7, -1, -1)]
    codes, length, word = [], 0, 0
    for place, bit in enumerate(stream):
        length, word = length + 1, word << 1 | bit
        if (length, word) in words:
            codes.append(words[length, word])
            length = word = 0
            if len(codes) == count:
                if any(stream[place + 1 :]) or place // 8 + 1 != len(data):
                    raise Refused("malformed", "more behind the last word")
                return codes
    raise Refused("malformed", f"{len(codes)} words of {count}")


def range_coder(source: Bytes, count: int, symbols: int) -> list[int]:
    """BF-072, with whole numbers of any size cut to 64 bits."""
    number = varint(source, count + 2)
    words = list(struct.unpack(f"<{number}I", source.take(4 * number)))
    if words and words[-1] == 0:
        raise Refused("malformed", "the last word is zero")
    low, size, read = 0, WORD, 2
    point = word_at(words, 0) << 32 | word_at(words, 1)
    codes, seen, block = [], Counter(), 16
    while len(codes) < count:
        frequencies = frequencies_of(seen, symbols)
        starts = [0, *accumulate(frequencies[:-1])]
        new = []
        for _ in range(min(block, count - len(codes))):
            step = size >> 24
            place = ((point - low) & WORD) // step
            if place >= 2**24:
                raise Refused("malformed", "a point outside of every symbol")
            symbol = bisect_right(starts, place) - 1
            new.append(symbol)
            low, size = (low + step * starts[symbol]) & WORD, step * frequencies[symbol]
            if size < 2**32:
                low, size = low << 32 & WORD, size << 32
                point = (point << 32 & WORD) | word_at(words, read)
                read += 1
        codes += new
        seen.update(new)
        block = min(2 * block, 65536)
    if read < len(words) or (size != WORD and (point - low) & WORD >= 2**33 - 1):
        raise Refused("malformed", "more behind the last code")
    return codes


def word_at(words: Sequence[int], place: int) -> int:
    return words[place] if place < len(words) else 0


def frequencies_of(seen: Counter[int], symbols: int) -> list[int]:
    weights = [2 * seen[symbol] + 1 for symbol in range(symbols)]
    total = sum(weights)
    result = [1 + weight * (2**24 - symbols) // total for weight in weights]
    result[result.index(max(result))] += 2**24 - sum(result)
    return result


CODERS = {"bitpack": bitpack, "golomb": golomb, "huffman": huffman, "rc": range_coder}

# --- tensors ---


def word(seed: int, number: int) -> int:
    """Word `number` of the stream of a seed (BF-059)."""
    x = (seed + (number + 1) * 0x9E3779B97F4A7C15) & WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


def fp32(source: Bytes, count: int, seed: int) -> list[float]:
    """BF-051."""
    return source.floats(count)


def uniform(bits: int, coder: Coder, source: Bytes, count: int, seed: int) -> list[float]:
    """BF-052."""
    low, high = source.floats(2)
    codes = coder(source, count, 2**bits)
    return on_range(codes, low, high, 2**bits - 1)


def on_range(codes: Iterable[int], low: float, high: float, top: int) -> list[float]:
    if low > high:
        raise Refused("malformed", f"minimum {low} above maximum {high}")
    return [finite(low + code * ((high - low) / top)) for code in codes]


def step(coder: Coder, source: Bytes, count: int, seed: int) -> list[float]:
    """BF-076. Products of a float32 and 25 bits are exact in Python's floats, so `finite` is the only rounding."""
    (size,) = source.floats(1)
    low, top = struct.unpack("<iB", source.take(5))
    if size <= 0 or low < -(2**24) or low + top > 2**24:
        raise Refused("malformed", f"levels {low} to {low + top} of step {size}")
    levels = [finite(level * size) for level in range(low, low + top + 1)]
    return [levels[code] for code in coder(source, count, top + 1)] if top else levels * count


def sign(source: Bytes, count: int, seed: int) -> list[float]:
    """BF-053 and BF-057."""
    (scale,) = source.floats(1)
    if scale < 0:
        raise Refused("malformed", f"scale {scale}")
    return [scale if bit else -scale for bit in packed(source, count, 1)]


def half(source: Bytes, count: int, seed: int) -> list[float]:
    """BF-054."""
    (exponent,) = struct.unpack("<b", source.take(1))
    return scaled(struct.unpack(f"<{count}e", source.take(2 * count)), exponent)


def scaled(halves: Sequence[float], exponent: int) -> list[float]:
    if not -120 <= exponent <= 113:
        raise Refused("malformed", f"exponent {exponent}")
    return [finite(value * 2.0**exponent) for value in halves]


def blocks_of(count: int) -> list[int]:
    """Sizes of the blocks of a tensor (BF-059)."""
    padded = -(-count // 64) * 64
    sizes = [4096] * (padded // 4096)
    return sizes + [size for size in (2048, 1024, 512, 256, 128, 64) if padded % 4096 & size]


POSITIVE_LEVELS = {
    1: (0.7979,),
    2: (0.4528, 1.5104),
    3: (0.2451, 0.7560, 1.3439, 2.1520),
    4: (0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0690, 2.7326),
}


def eden(rate: float, coder: Coder, source: Bytes, count: int, seed: int) -> list[float]:
    """BF-058."""
    sizes = blocks_of(count)
    scales = source.floats(len(sizes))
    if any(not 0 <= scale <= 1e34 for scale in scales):
        raise Refused("malformed", "a scale outside of 0 to 10^34")
    sent = [ceil(rate * size) if rate < 1 else size for size in sizes]
    positive = POSITIVE_LEVELS[ceil(rate)]
    levels = [-level for level in reversed(positive)] + list(positive)
    codes = coder(source, sum(sent), len(levels))
    values, start, used = [], 0, 0
    for size, number, scale in zip(sizes, sent, scales, strict=True):
        rotated = [0.0] * size
        for place, code in zip(chosen(seed, start, size, number, sum(sizes)), codes[used:], strict=False):
            rotated[place] = scale * levels[code]
        values += unrotated(rotated, seed, start)
        start, used = start + size, used + number
    return [finite(value) for value in values[:count]]


def chosen(seed: int, start: int, size: int, number: int, padded: int) -> Sequence[int]:
    """The places of a block that have codes."""
    if number == size:
        return range(size)
    return sorted(sorted(range(size), key=lambda i: (word(seed, padded // 64 + start + i), i))[:number])


def unrotated(values: list[float], seed: int, start: int) -> list[float]:
    """D·H·ŷ/√d of one block that begins at value `start` of the padded tensor (BF-059)."""
    size, half_size = len(values), 1
    while half_size < size:
        for i in range(0, size, 2 * half_size):
            for j in range(i, i + half_size):
                a, b = values[j], values[j + half_size]
                values[j], values[j + half_size] = a + b, a - b
        half_size *= 2
    words = [word(seed, (start + i) // 64) for i in range(0, size, 64)]
    return [(-v if words[i // 64] >> i % 64 & 1 else v) / sqrt(size) for i, v in enumerate(values)]


def sparse(coder: Coder, inner: Codec, source: Bytes, count: int, seed: int) -> list[float]:
    """BF-074."""
    kept = coder(source, count, 2)
    values = iter(inner(source, sum(kept), seed) if any(kept) else [])
    return [next(values) if one else 0.0 for one in kept]


def fedzip(clusters: int, coder: Coder, source: Bytes, count: int, seed: int) -> list[float]:
    """BF-075."""
    centroids = source.floats(clusters)
    return [centroids[code] for code in coder(source, count, clusters)]


# --- recipes ---

NUMBER = r"\d?\.?\d{1,8}"
RECIPE = re.compile(
    rf"(?:(?P<keep>ef|dgc)\+)?"
    rf"(?:(?P<sparse>topk|stc):(?P<share>{NUMBER})(?=\+|$)\+?)?"
    rf"(?P<quantizer>fp32|half|uniform|step|sign|stosign|eden|fedzip)?"
    rf"(?::(?P<rate>{NUMBER})|:z=(?P<z>{NUMBER}),k=(?P<k>\d{{1,2}}))?"
    rf"(?:(?:^|\+|(?<=\+))(?P<coder>huffman|rc))?",
    re.ASCII,
)


def codec_of(recipe: str) -> Codec:
    """(source, count, seed) → values of a weight tensor (BF-056)."""
    found = RECIPE.fullmatch(recipe)
    if found is None or not fits(found):
        raise Refused("unsupported", f"recipe {recipe!r}")
    if canonical(found) != recipe:
        raise Refused("malformed", f"recipe {recipe!r}: expected {canonical(found)!r}")
    coder = CODERS[found["coder"]] if found["coder"] else None
    inner = quantizer_of(found, coder)
    if found["sparse"]:
        positions = range_coder if found["coder"] == "rc" else golomb
        return partial(sparse, positions, inner)
    return inner


def quantizer_name(found: re.Match[str]) -> str:
    return found["quantizer"] or {"stc": "sign", "topk": "half"}.get(found["sparse"], "")


def fits(found: re.Match[str]) -> bool:
    """Whether the stages go together and their numbers are in range."""
    name, rate, sparse_one = quantizer_name(found), float(found["rate"] or 0), bool(found["sparse"])
    numbers = {
        "uniform": rate in range(1, 9),
        "step": 0 < rate <= 10,
        "eden": rate in range(1, 5) or 0 < rate < 1,
        "fedzip": found["z"] is not None and 0 < float(found["z"]) <= 1 and 2 <= int(found["k"]) <= 16,
    }.get(name, found["rate"] is None)
    alone = name in {"uniform", "step", "fedzip"} or (name == "eden" and rate > 1)
    return (
        bool(name)
        and numbers
        and (found["z"] is None or name == "fedzip")
        and (not sparse_one or (0 < float(found["share"]) < 1 and name in {"fp32", "half", "uniform", "sign"}))
        and (found["sparse"] != "stc" or found["quantizer"] is None)
        and (found["keep"] != "dgc" or sparse_one)
        and (not found["coder"] or alone or (found["coder"] == "rc" and sparse_one))
    )


def canonical(found: re.Match[str]) -> str:
    """The one spelling."""
    name, stages = quantizer_name(found), [found["keep"]]
    if found["sparse"] and name == "sign":
        stages += [f"stc:{decimal(found['share'])}"]
    elif found["sparse"]:
        stages += [f"topk:{decimal(found['share'])}", "" if name == "half" else name_with_number(found, name)]
    else:
        stages += [name_with_number(found, name)]
    return "+".join(stage for stage in [*stages, found["coder"]] if stage)


def name_with_number(found: re.Match[str], name: str) -> str:
    if found["rate"]:
        return f"{name}:{decimal(found['rate'])}"
    return f"{name}:z={decimal(found['z'])},k={int(found['k'])}" if found["z"] else name


def decimal(text: str) -> str:
    """A number without needless zeros."""
    whole, _, part = text.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + ("." + part if part else "")


def is_plain(recipe: str) -> bool:
    """Whether small tensors are float32 as well (BF-055)."""
    return recipe.removeprefix("ef+") == "fp32"


def quantizer_of(found: re.Match[str], coder: Coder | None) -> Codec:
    match quantizer_name(found):
        case "fp32":
            return fp32
        case "half":
            return half
        case "uniform":
            return partial(uniform, int(found["rate"]), coder or bitpack)
        case "step":
            return partial(step, coder or bitpack)
        case "eden":
            return partial(eden, float(found["rate"]), coder or bitpack)
        case "fedzip":
            return partial(fedzip, int(found["k"]), coder or golomb)
    return sign


# --- payloads ---


def header(source: Bytes) -> tuple[str, str, list[str], int, int, int]:
    """Architecture, recipe, precisions, content, pictures, seed (BF-040)."""
    if source.take(2) != b"BF":
        raise Refused("malformed", "no payload")
    if source.take(1) != b"\x01":
        raise Refused("unsupported", "another version")
    (length,) = struct.unpack("<H", source.take(2))
    if length > 512:
        raise Refused("malformed", f"a header of {length} bytes")
    inside = Bytes(source.take(length))
    try:
        values = msgpack(inside)
        inside.end()
    except Refused as error:
        raise Refused("malformed", f"header: {error}") from error
    if not isinstance(values, dict):
        raise Refused("malformed", "the header is no map")
    architecture, recipe, precision = (of_type(values, key, str) for key in (1, 2, 3))
    content, pictures = of_type(values, 4, int), of_type(values, 5, int)
    seed = of_type({6: 0, **values}, 6, int)
    if not (0 <= content <= 2 and 0 <= pictures <= 2**32 and 0 <= seed < 2**32):
        raise Refused("malformed", f"header {values}")
    return architecture, recipe, precision.split("+"), content, pictures, seed


def of_type(values: dict[Any, Any], key: int, kind: type[T]) -> T:
    if type(values.get(key)) is not kind:
        raise Refused("malformed", f"header key {key}: {values.get(key)!r}")
    return values[key]


MOMENTS = {"mean", "variance"}
EDGES = r"[1-9]\d{0,2}x[1-9]\d{0,4}x[1-9]\d{0,4}"
ARCHITECTURE = re.compile(
    rf"[a-z0-9-]+:width=(?:[1-9]|\d\.\d{{0,5}}[1-9])(?:,stem=\dx\d)?,input={EDGES},classes=[1-9]\d{{0,5}}"
    r"(?:,norm=group)?(?:,codes=nested)?",
    re.ASCII,
)
PRECISION = re.compile(r"fp32|W(\d{1,2})A(\d{1,2})", re.ASCII)


def table_of(architecture: str, tables: dict[str, Table]) -> Table:
    """The rows of a network (BF-060)."""
    if ARCHITECTURE.fullmatch(architecture) is None:
        raise Refused("malformed", f"architecture {architecture!r}")
    if architecture not in tables:
        raise Refused("unsupported", f"architecture {architecture!r}: no table")
    return tables[architecture]


def rows_of(table: Table, precisions: list[str], content: int, pictures: int) -> list[Row]:
    """[name, shape, role] of the tensors that are sent, in the order of section 6 (BF-044, BF-061, BF-064, BF-065)."""
    if len(precisions) > 8:
        raise Refused("unsupported", f"{len(precisions)} precisions")
    rows: list[Row] = [] if content == 2 else list(table["shared"])
    for number, precision in enumerate(precisions):
        check_precision(precision, precisions, table)
        prefix = f"{precision}/" if number else ""
        rows += [(prefix + name, shape, role) for name, shape, role in table["profiles"][precision]]
    return rows if content == 0 or pictures else [row for row in rows if row[2] not in MOMENTS]


def check_precision(precision: str, precisions: list[str], table: Table) -> None:
    """BF-041, BF-062, BF-064."""
    found = PRECISION.fullmatch(precision)
    if found is None:
        raise Refused("unsupported", f"precision {precision!r}")
    if any(digits and digits[0] == "0" for digits in found.groups()) or precision == "W32A32":
        raise Refused("malformed", f"precision {precision!r}: not canonical")
    if precisions.count(precision) > 1:
        raise Refused("malformed", f"precision {precision!r} twice")
    if precision not in table["profiles"]:
        raise Refused("unsupported", f"precision {precision!r}")


def payload(data: bytes, tables: dict[str, Table]) -> Tensors:
    """Every tensor by name, as a list of float32 values.

    Args:
        data: the payload.
        tables: architecture → {"shared": rows, "profiles": {precision: rows}}, from the kit's networks.
    """
    source = Bytes(data)
    architecture, recipe, precisions, content, pictures, seed = header(source)
    rows = rows_of(table_of(architecture, tables), precisions, content, pictures)
    weights = [row for row in rows if row[2] == "weight"]
    others = [row for row in rows if row[2] != "weight"]
    moments = [row for row in others if content == 0 or row[2] in MOMENTS]
    deltas = [row for row in others if row not in moments]
    codec, plain = codec_of(recipe), is_plain(recipe)
    result: Tensors = {}
    for number, (name, shape, _) in enumerate(weights):
        result[name] = codec(source, prod(shape), word(seed, number))
    together(source, deltas, floats_together if plain else ranges_together, result)
    together(source, moments, floats_together if plain else halves_together, result)
    source.end()
    for name, _, role in rows:
        if role == "variance" and min(result[name]) < 0:
            raise Refused("malformed", f"{name} below zero")
    return {name: result[name] for name, _, _ in rows}


def together(source: Bytes, rows: list[Row], read: Group, result: Tensors) -> None:
    """Small tensors that lie together (BF-055)."""
    sizes = [prod(shape) for _, shape, _ in rows]
    for (name, _, _), values in zip(rows, read(source, sizes), strict=True):
        result[name] = values


def floats_together(source: Bytes, sizes: list[int]) -> list[list[float]]:
    return [source.floats(size) for size in sizes]


def ranges_together(source: Bytes, sizes: list[int]) -> list[list[float]]:
    ranges = [source.floats(2) for _ in sizes]
    return [on_range(source.take(size), *bounds, 255) for size, bounds in zip(sizes, ranges, strict=True)]


def halves_together(source: Bytes, sizes: list[int]) -> list[list[float]]:
    exponents = struct.unpack(f"<{len(sizes)}b", source.take(len(sizes)))
    halves = [struct.unpack(f"<{size}e", source.take(2 * size)) for size in sizes]
    return [scaled(values, exponent) for values, exponent in zip(halves, exponents, strict=True)]


# --- states ---


def state_after(state: bytes, step: bytes, tables: dict[str, Table]) -> bytes:
    """The state that a step leads to from one before it, or from none (BF-029)."""
    architecture, _, precisions, content, _, _ = header(Bytes(step))
    after = payload(step, tables)
    if content == 1:
        if header(Bytes(state))[0:3:2] != (architecture, precisions):
            raise Refused("malformed", "a step of another model")
        before = payload(state, tables)
        rows = rows_of(table_of(architecture, tables), precisions, content, 0)
        after = before | after | {name: sums(before[name], after[name]) for name, _, _ in rows}
    elif content != 0:
        raise Refused("malformed", f"a step of content {content}")
    rows = rows_of(table_of(architecture, tables), precisions, 0, 0)
    texts = enumerate((architecture, "fp32", "+".join(precisions)), start=1)
    head = b"\x86" + b"".join(bytes([key]) + text(value) for key, value in texts) + bytes([4, 0, 5, 0, 6, 0])
    in_order = sorted(rows, key=lambda row: row[2] != "weight")
    body = b"".join(struct.pack(f"<{len(after[name])}f", *after[name]) for name, _, _ in in_order)
    return b"BF\x01" + struct.pack("<H", len(head)) + head + body


def sums(one: list[float], two: list[float]) -> list[float]:
    return [finite(a + b) for a, b in zip(one, two, strict=True)]


def text(value: str) -> bytes:
    """Text of msgpack in its shortest form, up to 255 bytes."""
    data = value.encode()
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else bytes([0xD9, len(data)])) + data
