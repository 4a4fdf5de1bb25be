"""What the conformance kit holds: `write` puts it into tests/conformance/v1, whose README explains it.

Every file is a function here that gives its content, so that a file that is missing can be written and one that is
there can be compared. Bytes are hexadecimal text, float32 values too, little-endian, one after the other.
"""

from collections.abc import Callable, Mapping
from typing import Any

Vector = dict[str, Any]
Files = Mapping[str, Callable[[], Vector | bytes]]
"""What gives the content of a file, by its name below tests/conformance/v1."""
