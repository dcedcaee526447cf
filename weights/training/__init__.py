"""How the weights are trained; not part of the wheel."""
