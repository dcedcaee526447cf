"""Trained weights, their manifest, and the recipe that made them."""
