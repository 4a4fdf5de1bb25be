"""The entropy coders: exact on anything, and close to the entropy where their kind can be."""

import numpy as np
import pytest
from coder_contract import AWKWARD, CoderContract, ratio, zipf

from protocol.codec.bitpack import Bitpack
from protocol.codec.golomb import Golomb
from protocol.codec.huffman import Huffman
from protocol.codec.range_coder import RangeCoder
from protocol.codec.range_queue import LibraryDecoder, LibraryEncoder, PlainDecoder, PlainEncoder
from protocol.codec.varint import read_varint, varint
from protocol.errors import Malformed
from protocol.precision import UInt8
from protocol.reader import Reader


def sparse(count: int, share: float, symbols: int) -> UInt8:
    rng = np.random.default_rng(1)
    return ((rng.random(count) < share) * rng.integers(1, symbols, count)).astype(np.uint8)


class TestBitpack(CoderContract):
    coder = Bitpack()

    def test_a_code_that_no_symbol_has_is_refused(self) -> None:
        """BF-050."""
        with pytest.raises(Malformed, match="expected below 3"):
            self.coder.decode(Reader(b"\x03"), 1, 3)


class TestGolomb(CoderContract):
    coder = Golomb()

    def test_the_layout_by_hand(self) -> None:
        """BF-070: gaps 2 and 4 with r = 1 are 1|0 and 2|0, so 10 110 and 00; then the codes 2 and 1, less one."""
        codes_N = np.array([0, 0, 2, 0, 0, 0, 0, 1, 0], dtype=np.uint8)
        assert self.coder.encode(codes_N, 3) == bytes([2, 1, 1, 0b01101, 0b00, 0b01])

    @pytest.mark.parametrize("share", [0.2, 0.05, 0.01, 0.0025, 0.001])
    def test_positions_take_within_a_tenth_of_the_entropy(self, share: float) -> None:
        """BF-070: the figure of ALGORITHMS section 5, for a hundred thousand values or more."""
        assert ratio(self.coder, sparse(1_000_000, share, 3), 3) <= 1.1

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            pytest.param([11], "at most 10", id="more codes than values"),
            pytest.param([1, 32, 1, 0], "Rice parameter", id="a parameter no gap needs"),
            pytest.param([1, 0, 4, 0, 0, 0, 0], "at most 3", id="more unary bytes than gaps"),
            pytest.param([2, 0, 1, 0xFE], "end in the last", id="fewer gaps than codes"),
            pytest.param([1, 0, 2, 0, 0], "end in the last", id="bytes that no gap needs"),
            pytest.param([1, 0, 1, 2], "must be zero", id="bits after the last gap"),
            pytest.param([1, 3, 1, 3, 0], "expected below 10", id="a gap beyond the end"),
            pytest.param([2, 0, 2, 0xFF, 1], "expected below 10", id="a position beyond the end"),
            pytest.param([0x81, 0x00], "longer than it needs", id="a length with needless bytes"),
        ],
    )
    def test_what_no_encoder_writes_is_refused(self, data: list[int], message: str) -> None:
        """BF-070."""
        with pytest.raises(Malformed, match=message):
            self.coder.decode(Reader(bytes(data)), 10, 2)


class TestHuffman(CoderContract):
    coder = Huffman()

    def test_the_layout_by_hand(self) -> None:
        """BF-071: lengths 2, 1, 3, 3 stand for 10, 0, 110, 111."""
        codes_N = np.array([1, 1, 1, 1, 0, 0, 2, 3], dtype=np.uint8)
        assert self.coder.encode(codes_N, 4) == bytes([0x12, 0x33, 2, 0b00001010, 0b11011100])

    @pytest.mark.parametrize("symbols", [4, 16, 256])
    def test_unequal_symbols_take_within_a_tenth_of_the_entropy(self, symbols: int) -> None:
        """BF-071: as far as whole bits can, where no symbol has most of the probability."""
        codes_N = np.random.default_rng(0).binomial(symbols - 1, 0.5, 200_000).astype(np.uint8)
        assert ratio(self.coder, codes_N, symbols) <= 1.1

    def test_no_word_is_longer_than_fourteen_bits(self) -> None:
        """BF-071: Fibonacci's numbers make the deepest trees."""
        counts = [1, 1]
        while len(counts) < 24:
            counts.append(counts[-1] + counts[-2])
        codes_N = np.repeat(np.arange(24), counts).astype(np.uint8)
        np.testing.assert_array_equal(self.round_trip(codes_N, 24), codes_N)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            pytest.param([0x11, 0x01, 1, 0], "complete code", id="three words of one bit"),
            pytest.param([0x21, 0x00, 1, 0], "complete code", id="a word that is missing"),
            pytest.param([0x00, 0x00, 0], "complete code", id="no words"),
            pytest.param([0x1F, 0x00], "others beside it", id="alone, but not"),
            pytest.param([0x11, 0x10, 1, 0], "half a byte", id="a fourth of three symbols"),
            pytest.param([0x11, 0x00, 2, 0, 0], "words end at bit", id="bytes that no word needs"),
            pytest.param([0x11, 0x00, 1, 1], "must be zero", id="bits after the last word"),
            pytest.param([0x11, 0x00, 0x80, 0x40], "at most", id="more bytes than words could fill"),
        ],
    )
    def test_tables_and_words_that_lie_are_refused(self, data: list[int], message: str) -> None:
        """BF-071."""
        with pytest.raises(Malformed, match=message):
            self.coder.decode(Reader(bytes(data)), 5, 3)


class TestRangeCoder(CoderContract):
    coder = RangeCoder(LibraryEncoder, LibraryDecoder)

    def test_the_layout_by_hand(self) -> None:
        """BF-072: the last of three symbols takes what is above two thirds of 2^24, 0xAAAAAB; a word of it remains."""
        assert self.coder.encode(np.array([2], dtype=np.uint8), 3) == b"\x01" + (0xAAAAAB00).to_bytes(4, "little")

    @pytest.mark.parametrize(
        "codes_N",
        [
            pytest.param(sparse(400_000, 0.0025, 3), id="sparse"),
            pytest.param(sparse(400_000, 0.2, 3), id="less so"),
            pytest.param(zipf(400_000, 3), id="three"),
            pytest.param(zipf(100_000, 256), id="bytes"),
        ],
    )
    def test_codes_take_within_three_hundredths_of_the_entropy(self, codes_N: UInt8) -> None:
        """BF-072: the figure of ALGORITHMS section 5, for a hundred thousand values or more."""
        assert ratio(self.coder, codes_N, int(codes_N.max()) + 1) <= 1.03

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            pytest.param(b"\x0d", "at most 12", id="more words than symbols"),
            pytest.param(b"\x01" + bytes(4), "must not be zero", id="a last word of zero"),
            pytest.param(b"\x02" + b"\xff" * 8, "no encoder makes", id="a number beyond the range"),
            pytest.param(b"\x09" + b"\x01" * 36, "need fewer", id="words that no symbol needs"),
        ],
    )
    def test_words_that_no_encoder_writes_are_refused(self, data: bytes, message: str) -> None:
        """BF-072."""
        with pytest.raises(Malformed, match=message):
            self.coder.decode(Reader(data), 10, 2)


class TestRangeCoderWithoutTheLibrary(CoderContract):
    coder = RangeCoder(PlainEncoder, PlainDecoder)

    @pytest.mark.parametrize("name", AWKWARD)
    def test_the_bytes_are_those_of_the_library(self, name: str) -> None:
        """BF-072."""
        codes_N, symbols = AWKWARD[name]
        assert self.coder.encode(codes_N, symbols) == TestRangeCoder.coder.encode(codes_N, symbols)

    @pytest.mark.parametrize("data", [b"\x02" + b"\xff" * 8, b"\x09" + b"\x01" * 36])
    def test_it_refuses_what_the_library_refuses(self, data: bytes) -> None:
        """BF-072."""
        with pytest.raises(Malformed):
            self.coder.decode(Reader(data), 10, 2)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 1 << 40])
def test_a_varint_is_seven_bits_a_byte(number: int) -> None:
    """BF-073."""
    data = varint(number)
    assert len(data) == max(1, -(-number.bit_length() // 7))
    assert read_varint(Reader(data), 1 << 62, "number") == number


@pytest.mark.parametrize("data", [b"\x80\x00", b"\xff" * 10, b"\x05"])
def test_a_varint_that_is_too_long_or_too_large_is_refused(data: bytes) -> None:
    """BF-073."""
    with pytest.raises(Malformed):
        read_varint(Reader(data), 4, "number")
