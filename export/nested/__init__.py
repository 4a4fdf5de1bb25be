"""One file that serves every width: `model` gathers and slices, `file` writes and reads, `checked` proves it."""

from export.nested.checked import NestedExport, Slice, export_nested
from export.nested.file import read_nested, write_nested
from export.nested.model import NestedModel, nest

__all__ = ["NestedExport", "NestedModel", "Slice", "export_nested", "nest", "read_nested", "write_nested"]
