"""The vocabulary: decisions, architectures, spaces, mixes, plans and methods. Sees torch and the standard library
only."""
