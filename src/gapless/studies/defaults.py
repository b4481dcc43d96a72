"""Defaults and choices of studies, which the help of a command shows without importing the study."""

FEATURE_IMAGES = 1000
"""Training images for the feature maps of ``gapless diagnose``."""
GAP_ARCHS, GAP_IMAGES, GAP_BUDGETS = 20, 2000, (8, 64)
"""Random architectures, test images and batches of fine-tuning of ``gapless gap`` (arXiv 2001.01431 takes 5 to 10
batches, and 64)."""
FORMATS = {"py": "gapless.formats.python", "onnx": "gapless.formats.onnx", "torch": "gapless.formats.program"}
"""Format of ``gapless export`` -> the module that writes it."""
