"""Networks that others trained: a checkpoint or ONNX file in, tensors of our own table out.

torch_file, safetensors_file, npz, onnx_file ──> arrays under torchvision's names ──> names, spec ──> preprocess
"""

from export.foreign.adopt import Adopted, adopt
from export.foreign.checkpoint import read_checkpoint
from export.foreign.found import Found
from export.foreign.preprocess import Preprocessing

__all__ = ["Adopted", "Found", "Preprocessing", "adopt", "read_checkpoint"]
