"""What every tensor codec must do. A new codec inherits all of it by naming itself."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protocol.codec.base import TensorCodec
from protocol.errors import Incomplete, RemoteProtocolError
from protocol.precision import Float32
from protocol.reader import Reader

finite = st.floats(-(2.0**99), 2.0**99, width=32)
tensors = st.integers(1, 70).flatmap(lambda n: arrays(np.float32, n, elements=finite))
SEED = 0x123456789ABCDEF0
"""Of what both sides draw alike."""

AWKWARD = {
    "one": np.array([3.5], dtype=np.float32),
    "zeros": np.zeros(17, dtype=np.float32),
    "equal": np.full(9, -2.25, dtype=np.float32),
    "tiny": np.full(5, 1e-40, dtype=np.float32),
    "mixed": np.array([1e-30, -1e30, 0.0, -0.0, 7.0], dtype=np.float32),
    "one of many": np.eye(1, 5000, 4999, dtype=np.float32)[0],
    "two blocks": np.sin(np.arange(8193, dtype=np.float32)),
}


class CodecContract:
    """Inherit, and set `codec`."""

    codec: TensorCodec

    def encode(self, values_N: Float32, seed: int = 0) -> bytes:
        return self.codec.encode(values_N, np.random.default_rng(seed), SEED)

    def round_trip(self, values_N: Float32, seed: int = 0) -> Float32:
        reader = Reader(self.encode(values_N, seed))
        decoded_N = self.codec.read(reader, values_N.size, SEED).values()
        reader.finish()
        return decoded_N

    @given(tensors)
    def test_what_was_encoded_decodes_to_finite_values_of_the_same_shape(self, values_N: Float32) -> None:
        decoded_N = self.round_trip(values_N)
        assert decoded_N.shape == values_N.shape
        assert decoded_N.dtype == np.float32
        assert np.isfinite(decoded_N).all()

    @pytest.mark.parametrize("name", AWKWARD)
    def test_awkward_tensors_decode(self, name: str) -> None:
        assert np.isfinite(self.round_trip(AWKWARD[name])).all()

    @given(tensors)
    def test_the_same_seed_gives_the_same_bytes(self, values_N: Float32) -> None:
        assert self.encode(values_N, 4) == self.encode(values_N, 4)

    def test_the_tensor_that_is_encoded_stays_as_it_is(self) -> None:
        values_N = np.random.default_rng(2).normal(size=300).astype(np.float32)
        before_N = values_N.copy()
        self.encode(values_N)
        np.testing.assert_array_equal(values_N, before_N)

    @pytest.mark.parametrize("count", [1, 8, 9, 70])
    def test_every_strict_prefix_is_incomplete(self, count: int) -> None:
        """BF-042."""
        data = self.encode(np.random.default_rng(1).normal(size=count).astype(np.float32))
        for end in range(len(data)):
            with pytest.raises(Incomplete):
                self.codec.read(Reader(data[:end]), count, SEED).values()

    @given(st.binary(max_size=200), st.integers(1, 5000))
    def test_any_bytes_raise_only_the_protocols_own_errors(self, data: bytes, count: int) -> None:
        """BF-042."""
        try:
            decoded_N = self.codec.read(Reader(data), count, SEED).values()
        except RemoteProtocolError:
            return
        assert decoded_N.shape == (count,)
        assert np.isfinite(decoded_N).all()

    @given(st.integers(0, 1 << 30), st.integers(1, 255))
    def test_a_flipped_byte_decodes_to_finite_values_or_is_refused(self, position: int, flip: int) -> None:
        """BF-042, BF-043."""
        data = bytearray(self.encode(np.random.default_rng(3).normal(size=400).astype(np.float32)))
        data[position % len(data)] ^= flip
        try:
            assert np.isfinite(self.codec.read(Reader(bytes(data)), 400, SEED).values()).all()
        except RemoteProtocolError:
            return

    def test_neither_way_needs_more_than_a_few_times_the_memory_of_the_tensor(self) -> None:
        """BF-042: a decoder that would believe a length in the bytes shows here."""
        values_N = np.random.default_rng(5).normal(size=1 << 18).astype(np.float32)
        tracemalloc.start()
        try:
            self.round_trip(values_N)
            assert tracemalloc.get_traced_memory()[1] < 8 * values_N.nbytes
        finally:
            tracemalloc.stop()
