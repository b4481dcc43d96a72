"""Fused implementation of a cell on a CPU, compiled by Numba."""
