"""Defaults of studies, which the help of a command shows without importing the study."""

FEATURE_IMAGES = 1000
"""Training images for the feature maps of ``gapless diagnose``."""
