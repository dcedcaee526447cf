"""Files of weights: what they are, which ship, and how others are fetched."""
