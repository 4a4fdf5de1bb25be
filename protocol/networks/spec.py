"""The spec string that names a network, and the families it can name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol.architecture import Architecture, Norm, Shape
from protocol.errors import Malformed, Unsupported
from protocol.networks.builder import Builder

MIN_WIDTH: Final = 0.01
MAX_WIDTH: Final = 4.0
MAX_CLASSES: Final = 10_000
MIN_EDGE: Final = 8
MAX_EDGE: Final = 1024
MAX_INPUT_CHANNELS: Final = 16
"""Bounds on what a peer may make this side allocate: 16 times the widest published ResNet18 is no use on a Pi."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a spec says beside the family's name; `stem` is empty where the family has no choice of it."""

    width: float
    input_shape: Shape
    classes: int
    norm: Norm
    nested: bool
    stem: str
    zero: int


@dataclass(frozen=True)
class Family:
    """Networks that differ in their options alone; calling it makes one.

    Attributes:
        name: first word of the spec.
        rows: appends every row up to what the classifier reads, and returns that row's name.
        input_shape: (C, H, W) of a picture unless another is asked for.
        stems: stems to choose from, if any, the usual one first; an empty one goes without saying.
        normalised: whether there is normalisation to choose.
    """

    name: str
    rows: Callable[[Builder, Options], str]
    input_shape: Shape = (3, 32, 32)
    stems: tuple[str, ...] = ()
    normalised: bool = True

    def __call__(
        self,
        *,
        width: float = 1.0,
        stem: str | None = None,
        input_shape: Shape | None = None,
        classes: int = 10,
        norm: Norm = Norm.BATCH,
        nested: bool = False,
        zero: int = 0,
    ) -> Architecture:
        """The network with these options, as a table.

        Args:
            width: multiplier of every channel count, rounded to a multiple of 4 channels, at least 4.
            stem: where the family has several.
            input_shape: (C, H, W) of a picture.
            classes: number of logits.
            norm: what normalises its convolutions.
            nested: whether the codes of every width are the leading bits of one 8-bit code.
            zero: the grey that stands for 0 in a picture.

        Raises:
            Unsupported: an option is out of bounds.
        """
        if stem is None:
            stem = self.stems[0] if self.stems else ""
        options = Options(width, input_shape or self.input_shape, classes, norm, nested, stem, zero)
        self._check(options)
        builder = Builder(options.input_shape)
        builder.classifier(self.rows(builder, options), options.classes)
        spec, shape = self._spec(options), options.input_shape
        return Architecture(spec, shape, options.classes, builder.layers, options.norm, options.nested, options.zero)

    def _spec(self, options: Options) -> str:
        values = [f"width={options.width:g}"]
        values += [f"stem={options.stem}"] if options.stem else []
        values += [f"input={'x'.join(map(str, options.input_shape))}", f"classes={options.classes}"]
        values += [f"zero={options.zero}"] if options.zero else []
        values += ["norm=group"] if options.norm is Norm.GROUP else []
        values += ["codes=nested"] if options.nested else []
        return f"{self.name}:{','.join(values)}"

    def _check(self, options: Options) -> None:
        width, shape, classes = options.width, options.input_shape, options.classes
        if not MIN_WIDTH <= width <= MAX_WIDTH:
            raise Unsupported(f"{self.name} width {width}: expected {MIN_WIDTH} to {MAX_WIDTH}")
        if options.stem not in (self.stems or ("",)):
            raise Unsupported(f"{self.name} stem {options.stem!r}: expected one of {self.stems}")
        if len(shape) != 3 or not 1 <= shape[0] <= MAX_INPUT_CHANNELS:
            raise Unsupported(f"{self.name} input {shape}: expected (C, H, W) with 1 to {MAX_INPUT_CHANNELS} channels")
        if not all(MIN_EDGE <= edge <= MAX_EDGE for edge in shape[1:]):
            raise Unsupported(f"{self.name} input {shape}: expected edges of {MIN_EDGE} to {MAX_EDGE} pixels")
        if not 2 <= classes <= MAX_CLASSES:
            raise Unsupported(f"{self.name} classes {classes}: expected 2 to {MAX_CLASSES}")
        if not 0 <= options.zero <= 255:
            raise Unsupported(f"{self.name} zero {options.zero}: expected a grey of 0 to 255")
        if options.norm is not Norm.BATCH and not self.normalised:
            raise Unsupported(f"{self.name} norm {options.norm}: it has no normalisation to choose")


FAMILIES: Final[dict[str, Family]] = {}
"""By name; filled as `protocol.networks` imports the files that hold the tables."""


def register(family: Family) -> Family:
    """Make a family known to `parse`."""
    FAMILIES[family.name] = family
    return family


_SPEC: Final = re.compile(
    r"(?P<family>[a-z0-9-]{1,32}):width=(?P<width>\d(?:\.\d{1,6})?)(?:,stem=(?P<stem>\dx\d(?:s\d)?))?"
    r",input=(?P<c>\d{1,3})x(?P<h>\d{1,5})x(?P<w>\d{1,5}),classes=(?P<classes>\d{1,6})"
    r"(?:,zero=(?P<zero>\d{1,3}))?(?P<group>,norm=group)?(?P<nested>,codes=nested)?",
    re.ASCII,
)


@lru_cache(maxsize=32)
def parse(spec: str) -> Architecture:
    """Build the network that a spec string names.

    Raises:
        Malformed: the string is not a spec in canonical form.
        Unsupported: no such family, or its values are out of bounds.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise Malformed(
            f"architecture {spec[:80]!r}: expected for example resnet18:width=0.25,stem=3x3,input=1x32x32,classes=10"
        )
    if match["family"] not in FAMILIES:
        raise Unsupported(f"architecture {match['family']!r}: expected one of {', '.join(FAMILIES)}")
    network = FAMILIES[match["family"]](
        width=float(match["width"]),
        stem=match["stem"] or "",
        input_shape=(int(match["c"]), int(match["h"]), int(match["w"])),
        classes=int(match["classes"]),
        norm=Norm.GROUP if match["group"] else Norm.BATCH,
        nested=bool(match["nested"]),
        zero=int(match["zero"] or 0),
    )
    if network.spec != spec:
        raise Malformed(f"architecture {spec[:80]!r}: not canonical, expected {network.spec!r}")
    return network
