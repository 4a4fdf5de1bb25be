"""Quantization-aware training on the device; the only torch in the house."""
