"""Recipes, and the run folders that they lead to."""
