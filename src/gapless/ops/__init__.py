"""Candidate operations by name, as data."""
