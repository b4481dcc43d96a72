"""Fused implementation of a cell on a GPU, in Triton."""
