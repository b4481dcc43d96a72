"""Importers: the files that the authors of a benchmark publish, written as a table of the folder above."""
