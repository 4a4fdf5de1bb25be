"""What every tensor codec must do. A new codec inherits all of it by naming itself."""

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

AWKWARD = {
    "one": np.array([3.5], dtype=np.float32),
    "zeros": np.zeros(17, dtype=np.float32),
    "equal": np.full(9, -2.25, dtype=np.float32),
    "tiny": np.full(5, 1e-40, dtype=np.float32),
    "mixed": np.array([1e-30, -1e30, 0.0, -0.0, 7.0], dtype=np.float32),
}


class CodecContract:
    """Inherit, and set `codec`."""

    codec: TensorCodec

    def round_trip(self, values_N: Float32, seed: int = 0) -> Float32:
        reader = Reader(self.codec.encode(values_N, np.random.default_rng(seed)))
        decoded_N = self.codec.decode(reader, values_N.size)
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
        first, second = (self.codec.encode(values_N, np.random.default_rng(4)) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize("count", [1, 8, 9, 70])
    def test_every_strict_prefix_is_incomplete(self, count: int) -> None:
        """BF-042."""
        values_N = np.random.default_rng(1).normal(size=count).astype(np.float32)
        data = self.codec.encode(values_N, np.random.default_rng(0))
        for end in range(len(data)):
            with pytest.raises(Incomplete):
                self.codec.decode(Reader(data[:end]), count)

    @given(st.binary(max_size=200), st.integers(1, 1 << 40))
    def test_any_bytes_raise_only_the_protocols_own_errors_and_allocate_nothing_for_them(
        self, data: bytes, count: int
    ) -> None:
        """BF-042: a count of a million million would not fit this machine's memory."""
        try:
            decoded_N = self.codec.decode(Reader(data), count)
        except RemoteProtocolError:
            return
        assert np.isfinite(decoded_N).all()
