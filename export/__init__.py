"""Table and weights to a verified ONNX model: numbers (`graph`), small passes, a reference, a check, a bundle.

Plain `ai.onnx` operators written with `onnx.helper`; no torch anywhere.
"""
