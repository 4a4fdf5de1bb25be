"""The network in numpy, layer by layer, as slow and as plain as the definition: what exported models are held to."""

from export.reference.floating import FloatNetwork
from export.reference.integer import IntegerNetwork

__all__ = ["FloatNetwork", "IntegerNetwork"]
