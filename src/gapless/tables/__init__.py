"""Benchmark tables: what architectures are worth alone, measured by others."""
