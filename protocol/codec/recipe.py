"""A recipe is the codec spelled as a string; it travels in the offer and in the bytes.

Stages joined by `+`, in the order of encoding:

    feedback    `ef` (error feedback) or `dgc` (the same with momentum correction, for sparse recipes); sender only
    sparse      `topk:p`: only a share p of a tensor's values, 0 < p < 1
    quantizer   `fp32`, `half`, `uniform:b` (b from 1 to 8), `step:Δ` (Δ above 0, at most 10), `sign`, `stosign`,
                `eden:r` (r from 1 to 4, or between 0 and 1), `fedzip:z=z,k=k` (a share z in k clusters, k from 2 to
                16); after `topk` it may be left out for `half`
    coder       `huffman` or `rc` instead of fixed lengths and Golomb codes, where a histogram can gain anything

`stc:p` is `topk:p+sign`. Examples: `fp32`, `uniform:4+rc`, `step:0.002+rc`, `ef+sign`, `eden:1`, `ef+stc:0.0025`,
`fedzip:z=0.2,k=3`.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from protocol.codec.base import Coder, TensorCodec
from protocol.codec.bitpack import Bitpack
from protocol.codec.clusters import Clusters
from protocol.codec.eden import Eden
from protocol.codec.golomb import Golomb
from protocol.codec.half import Half
from protocol.codec.huffman import Huffman
from protocol.codec.plain import Plain
from protocol.codec.range_coder import RangeCoder
from protocol.codec.sign import Sign
from protocol.codec.sparse import Sparse
from protocol.codec.step import Step
from protocol.codec.stochastic_sign import StochasticSign
from protocol.codec.together import Floats, GroupCodec, Halves, Ranges
from protocol.codec.uniform import Uniform
from protocol.errors import Unsupported

DEFAULT_RECIPE: Final = "ef+sign"

STAGES: Final = (
    *("ef", "dgc"),
    "topk",
    *("fp32", "half", "uniform", "step", "sign", "stosign", "eden", "fedzip"),
    *("huffman", "rc"),
)
"""Every stage this version can encode and decode, as an agent lists them in its birth."""

_WARM_UP: Final = 0.25
_DECIMALS: Final = 8
_LARGEST_STEP: Final = 10
"""Far above any change of a weight; the next power of ten would need a longer spelling."""

_CODERS: Final[dict[str, Coder]] = {"huffman": Huffman(), "rc": RangeCoder()}
_BITPACK: Final = Bitpack()
_GOLOMB: Final = Golomb()
_FLOATS: Final = Floats()
_RANGES: Final = Ranges()
_HALVES: Final = Halves()
_UNTUNED: Final[dict[str, TensorCodec]] = {"fp32": Plain(), "half": Half(), "sign": Sign(), "stosign": StochasticSign()}
"""Codecs hold no state beyond their parameters, so one of each serves everybody."""
_NUMBER: Final = r"\d?\.?\d{1,8}"
_LONG_FORM: Final = re.compile(
    rf"((?P<feedback>ef|dgc)\+)?(topk:(?P<topk>{_NUMBER})\+)?"
    r"(?P<quantizer>fp32|half|sign|stosign|step|uniform|eden|fedzip)"
    rf"(:(?P<rate>{_NUMBER})|:z=(?P<share>{_NUMBER}),k=(?P<clusters>\d{{1,2}}))?"
    r"(\+(?P<coder>huffman|rc))?"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A parsed recipe.

    Attributes:
        quantizer: its name.
        rate: bits a value, where the quantizer has a choice; of `step`, the step.
        clusters: of `fedzip`.
        share: of the values that are kept, 1 for all.
        coder: the entropy coder's name, empty for the usual one.
        feedback: what the sender does with what the codec drops, empty for nothing.
    """

    quantizer: str
    rate: float = 0.0
    clusters: int = 0
    share: float = 1.0
    coder: str = ""
    feedback: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a recipe.

        Raises:
            Unsupported: a stage this version does not have, or stages that do not go together.
        """
        match = _LONG_FORM.fullmatch(_spelled_out(text))
        if match is None or (match["topk"] and (match["share"] or float(match["topk"]) >= 1)):
            raise _unsupported(text)
        recipe = cls(
            quantizer=match["quantizer"],
            rate=float(match["rate"] or 0),
            clusters=int(match["clusters"] or 0),
            share=float(match["topk"] or match["share"] or 1),
            coder=match["coder"] or "",
            feedback=match["feedback"] or "",
        )
        if not recipe._fits():
            raise _unsupported(text)
        return recipe

    def __str__(self) -> str:
        return "+".join(filter(None, (self.feedback, self._values(), self.coder)))

    @property
    def stages(self) -> frozenset[str]:
        """What a device must know to follow it."""
        sparse = "topk" if self.is_sparse else ""
        return frozenset(filter(None, (self.feedback, sparse, self.quantizer, self.coder)))

    @property
    def is_sparse(self) -> bool:
        """Whether most values may be sent as zero, by `topk` or `stc`."""
        return self.share < 1 and self.quantizer != "fedzip"

    @property
    def is_seeded(self) -> bool:
        """Whether both sides draw something alike."""
        return self.quantizer == "eden"

    @property
    def takes_steps(self) -> bool:
        """Whether weights take steps that are announced, and no others; those of `step` may double."""
        return self.quantizer == "stosign"

    @property
    def is_one_bit(self) -> bool:
        """Whether every weight travels as a sign."""
        return self.quantizer in ("sign", "stosign") and not self.is_sparse

    @property
    def without_feedback(self) -> Self:
        """The same codec for what leaves no residual, such as a calibration."""
        return replace(self, feedback="")

    def in_round(self, number: int) -> Self:
        """The recipe of round `number`, from 1: `dgc` keeps a quarter of the values, then a quarter of that, down to p.

        The warm-up of Y. Lin et al., "Deep Gradient Compression", ICLR 2018, arXiv 1712.01887, section 3.3: in the
        first rounds everything changes fast, and a sparse update is stale before it is sent.
        """
        if self.feedback != "dgc":
            return self
        return replace(self, share=max(self.share, round(_WARM_UP**number, _DECIMALS)))

    @property
    def weights(self) -> TensorCodec:
        """The codec of a weight tensor."""
        if not self.is_sparse:
            return self._quantizer()
        return Sparse(self.share, self._quantizer(), _CODERS["rc"] if self.coder == "rc" else _GOLOMB)

    @property
    def deltas(self) -> GroupCodec:
        """The codec of side tensors' changes: 8 bits, since few as they are, they would soon outweigh 1-bit weights."""
        return _FLOATS if self._is_plain else _RANGES

    @property
    def absolutes(self) -> GroupCodec:
        """The codec of moments, and of every side tensor of a broadcast model: 16 bits."""
        return _FLOATS if self._is_plain else _HALVES

    @property
    def _is_plain(self) -> bool:
        return self.quantizer == "fp32" and not self.is_sparse

    def _quantizer(self) -> TensorCodec:
        coder = _CODERS.get(self.coder, _BITPACK)
        match self.quantizer:
            case "uniform":
                return Uniform(int(self.rate), coder, nearest=bool(self.feedback))
            case "step":
                return Step(self.rate, coder, nearest=bool(self.feedback))
            case "eden":
                return Eden(self.rate, contractive=bool(self.feedback), coder=coder)
            case "fedzip":
                return Clusters(self.share, self.clusters, _CODERS.get(self.coder, _GOLOMB))
            case name:
                return _UNTUNED[name]

    def _fits(self) -> bool:
        """Whether the stages' parameters are in range, and the stages go together."""
        in_range = {
            "uniform": self.rate in range(1, 9),
            "step": 0 < self.rate <= _LARGEST_STEP,
            "eden": self.rate in range(1, 5) or 0 < self.rate < 1,
            "fedzip": 2 <= self.clusters <= 16 and not self.rate,
        }.get(self.quantizer, not self.rate)
        beside_sparse = not self.is_sparse or self.quantizer in ("fp32", "half", "sign", "uniform")
        return (
            in_range
            and 0 < self.share <= 1
            and (self.quantizer == "fedzip") == bool(self.clusters)
            and beside_sparse
            and (self.feedback != "dgc" or self.is_sparse)
            and (not self.coder or self._has_codes() or (self.coder == "rc" and self.is_sparse))
        )

    def _has_codes(self) -> bool:
        """Whether there are codes of unequal probability."""
        return self.quantizer in ("uniform", "step", "fedzip") or (self.quantizer == "eden" and self.rate > 1)

    def _values(self) -> str:
        if self.quantizer == "fedzip":
            return f"fedzip:z={_plain(self.share)},k={self.clusters}"
        if self.is_sparse and self.quantizer == "sign":
            return f"stc:{_plain(self.share)}"
        quantizer = f"{self.quantizer}:{_plain(self.rate)}" if self.rate else self.quantizer
        if not self.is_sparse:
            return quantizer
        return f"topk:{_plain(self.share)}" + ("" if quantizer == "half" else f"+{quantizer}")


def _spelled_out(text: str) -> str:
    """`stc` as what it stands for, and what `topk` leaves out."""
    text = re.sub(rf"stc:({_NUMBER})", r"topk:\1+sign", text)
    return re.sub(rf"(topk:{_NUMBER})(?=$|\+huffman|\+rc)", r"\1+half", text)


def _plain(number: float) -> str:
    """Decimal without an exponent or needless zeros."""
    return f"{number:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _unsupported(text: str) -> Unsupported:
    return Unsupported(
        f"recipe {text[:48]!r}: expected [ef|dgc+][topk:p+]quantizer[+huffman|rc], quantizer one of fp32, half,"
        " uniform:b, step:Δ, sign, stosign, eden:r, fedzip:z=z,k=k, or stc:p"
    )
