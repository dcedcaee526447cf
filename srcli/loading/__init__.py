"""From the name of a model to something that restores pictures."""
