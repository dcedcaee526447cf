"""PyTorch on a GPU: recorded networks and kernels in Triton."""
