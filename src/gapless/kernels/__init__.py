"""Fused implementations of a cell: the same numbers as operation by operation, in less time and memory."""
