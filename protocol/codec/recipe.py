"""A recipe is the codec spelled as a string; it travels in the offer and in the bytes.

Grammar: stages joined by `+` in the order of encoding. `ef` (error feedback, sender only) may come first; exactly
one quantizer follows: `fp32`, `uniform:b` with b from 1 to 8, or `sign`. Examples: `fp32`, `uniform:4`, `ef+sign`.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from protocol.architecture import MOMENTS, Role
from protocol.codec.base import TensorCodec
from protocol.codec.half import Half
from protocol.codec.plain import Plain
from protocol.codec.sign import Sign
from protocol.codec.uniform import Uniform
from protocol.errors import Unsupported

DEFAULT_RECIPE: Final = "ef+sign"

_FEEDBACK = "ef+"

_QUANTIZERS: Final[dict[str, TensorCodec]] = {
    "fp32": Plain(),
    "sign": Sign(),
    **{f"uniform:{bits}": Uniform(bits) for bits in range(1, 9)},
}
"""Codecs hold no state beyond their parameters, so one of each serves everybody."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A parsed recipe: whether the sender keeps a residual, and the quantizer's name."""

    quantizer: str
    feedback: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a recipe.

        Raises:
            Unsupported: a stage this version does not have.
        """
        quantizer = text.removeprefix(_FEEDBACK)
        if quantizer not in _QUANTIZERS:
            raise Unsupported(f"recipe {text[:48]!r}: expected [ef+] and one of {', '.join(_QUANTIZERS)}")
        return cls(quantizer, feedback=quantizer != text)

    def __str__(self) -> str:
        return f"{_FEEDBACK if self.feedback else ''}{self.quantizer}"

    @property
    def without_feedback(self) -> Self:
        """The same quantizer for what leaves no residual, such as a calibration."""
        return replace(self, feedback=False)

    def codec(self, role: Role, *, delta: bool) -> TensorCodec:
        """The codec of a tensor.

        Weights take the recipe's quantizer. Side tensors are few but at fp32 would soon outweigh 1-bit weights:
        their deltas take 8 bits, and absolute values (moments, and everything in a broadcast model) 16.
        """
        if role is Role.WEIGHT or self.quantizer == "fp32":
            return _QUANTIZERS[self.quantizer]
        return _QUANTIZERS["uniform:8"] if delta and role not in MOMENTS else _HALF


_HALF: Final = Half()


def recipes() -> tuple[str, ...]:
    """Every quantizer this version can encode and decode, as an agent lists them in its birth."""
    return tuple(_QUANTIZERS)
