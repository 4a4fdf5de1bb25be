"""Operators that exported models use beyond ONNX's own, and the library that computes them where it could be built.

A model that uses one also holds it as a function of standard operators (`export/passes/binary_functions.py`): ONNX
Runtime takes our kernel if the library was given to the session, else it puts the function in its place. One file,
one digest, the same bits; only the time differs.
"""

from protocol.operators.library import Operators, operators

BINARY_CONV = "BinaryConv"
BINARY_RESIDUAL = "BinaryResidual"
DOMAIN = "bitfleet"
VERSION = 1

__all__ = ["BINARY_CONV", "BINARY_RESIDUAL", "DOMAIN", "VERSION", "Operators", "operators"]
