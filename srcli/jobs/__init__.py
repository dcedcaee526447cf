"""Many files: what is to be done, and what was done."""
