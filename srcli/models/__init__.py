"""The networks: one folder each, facts in `__init__.py` (no torch), arithmetic in `network.py`."""
