"""Defaults and choices of studies, which the help of a command shows without importing the study."""

FEATURE_IMAGES = 1000
"""Training images for the feature maps of ``gapless diagnose``."""
FORMATS = {"py": "gapless.formats.python", "onnx": "gapless.formats.onnx", "torch": "gapless.formats.program"}
"""Format of ``gapless export`` -> the module that writes it."""
