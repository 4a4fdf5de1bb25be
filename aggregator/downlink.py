"""How the base model comes down: whole every time, or as steps from the state that devices hold (`protocol.reference`).

fp32, half                the whole model under this recipe
uniform:b, step:Δ         the whole model with the codec's noise, which devices train upon
delta:<recipe>            what changed, under this recipe, with error feedback; the first time whole, at 8 bits
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from aggregator.model import GlobalModel, base_payload
from protocol.codec.payload import Content, Header, decode, encode, header_seed
from protocol.codec.recipe import Recipe
from protocol.errors import Unsupported
from protocol.precision import Precision, join
from protocol.reference import moved, state_of

WHOLE: Final = frozenset({"fp32", "half", "uniform", "step"})
"""Quantizers of whole models: those that know nothing of a mean that the values could be around."""
FIRST: Final = "uniform:8"
"""Recipe of the step that needs no state before it; the next one carries what it left out."""
SOME: Final = 1
"""Pictures behind a step's moments: how many does not matter on the way down, but that there are any brings them."""
_BY_STEPS: Final = "delta:"


@dataclass(frozen=True)
class Downlink:
    """A parsed way down.

    Attributes:
        recipe: of whole models, or of what changed.
        by_steps: whether it is the latter.
    """

    recipe: Recipe
    by_steps: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it.

        Raises:
            Unsupported: neither a recipe for whole models nor `delta:` and a recipe without feedback of its own.
        """
        by_steps = text.startswith(_BY_STEPS)
        recipe = Recipe.parse(text.removeprefix(_BY_STEPS))
        if recipe.feedback or not (by_steps or (recipe.quantizer in WHOLE and not recipe.is_sparse)):
            raise Unsupported(
                f"downlink {text!r}: expected fp32, half, uniform:b, step:s, or delta: and a recipe without ef or dgc"
            )
        return cls(recipe, by_steps)

    @property
    def whole(self) -> Self:
        """The same, or the model itself as nearly as steps would ever come."""
        return replace(self, recipe=Recipe.parse("half"), by_steps=False) if self.by_steps else self

    @property
    def stages(self) -> frozenset[str]:
        """What a device must know to get along: steps are optional, since the state can be fetched whole."""
        return Recipe.parse("fp32").stages if self.by_steps else self.recipe.stages

    def __str__(self) -> str:
        return f"{_BY_STEPS * self.by_steps}{self.recipe}"


def first(recipe: Recipe) -> Recipe:
    """Of the step that needs no state before it, where others come by `recipe`: with its coder, if it has one."""
    return replace(Recipe.parse(FIRST), coder=recipe.coder)


def next_step(
    model: GlobalModel, precisions: Sequence[Precision], state: bytes | None, recipe: Recipe, seed: int
) -> tuple[bytes, bytes]:
    """The payload that leads devices from a state to the model, as near as the recipe comes, and where it leads.

    Args:
        model: where to.
        precisions: whose profiles the state has.
        state: what devices hold, None for nothing.
        recipe: of what changed.
        seed: of everything random; the same arguments give the same bytes.

    Returns:
        Payload and state.
    """
    if state is None:
        payload = base_payload(model, precisions, str(first(recipe)), seed)
        return payload, state_of(payload)
    # Feedback says that the error comes back next time, so that the codec may be biased and err less (`eden`).
    recipe = replace(recipe, feedback="ef")
    header = Header(model.architecture, str(recipe), join(precisions), Content.DELTA, SOME, header_seed(recipe, seed))
    tensors, held = model.tensors(*precisions), decode(state).tensors
    for spec in (*header.layout.weights, *header.layout.deltas):
        tensors[spec.name] = tensors[spec.name] - held[spec.name]
    payload = encode(header, tensors, np.random.default_rng(seed))
    return payload, moved(state, payload)
