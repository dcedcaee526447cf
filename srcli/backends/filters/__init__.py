"""LAPAR's filters, compiled for CPUs and for PyTorch."""
