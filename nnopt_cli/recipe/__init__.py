"""Recipes: a model, and the steps that are done to it, as a file."""
