import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocol.codec.bitpack import pack, packed_bytes, unpack
from protocol.errors import LocalProtocolError, Malformed
from protocol.precision import UInt8
from protocol.reader import Reader


def plain_pack(codes: list[int], bits: int) -> bytes:
    """The layout in three lines: one long integer, lowest code first."""
    number = sum(code << (index * bits) for index, code in enumerate(codes))
    return number.to_bytes(packed_bytes(len(codes), bits), "little")


packs = st.integers(1, 8).flatmap(
    lambda bits: st.tuples(
        st.just(bits), st.integers(1, 90).flatmap(lambda n: arrays(np.uint8, n, elements=st.integers(0, 2**bits - 1)))
    )
)


@given(packs)
def test_the_fast_way_agrees_with_the_plain_one(case: tuple[int, UInt8]) -> None:
    """BF-050."""
    bits, codes_N = case
    assert pack(codes_N, bits) == plain_pack(codes_N.tolist(), bits)
    assert (unpack(Reader(pack(codes_N, bits)), codes_N.size, bits) == codes_N).all()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [(1 << 16) - 1, (1 << 16) + 1, (1 << 17) + 13])
def test_blocks_join_without_a_seam(bits: int, count: int) -> None:
    """BF-050."""
    codes_N = np.random.default_rng(bits).integers(0, 2**bits, count).astype(np.uint8)
    data = pack(codes_N, bits)
    assert len(data) == packed_bytes(count, bits)
    assert (unpack(Reader(data), count, bits) == codes_N).all()


def test_the_example_of_the_docstring() -> None:
    """BF-050."""
    assert pack(np.array([0b101, 0b010, 0b111], dtype=np.uint8), 3) == bytes([0b11010101, 0b1])


def test_bits_after_the_last_code_must_be_zero() -> None:
    """BF-050."""
    with pytest.raises(Malformed, match="must be zero"):
        unpack(Reader(b"\x08"), 1, 3)


@pytest.mark.parametrize(("code", "bits"), [(8, 3), (2, 1), (1, 0), (1, 9)])
def test_a_code_that_does_not_fit_is_our_fault(code: int, bits: int) -> None:
    with pytest.raises(LocalProtocolError):
        pack(np.array([code], dtype=np.uint8), bits)
