"""Video: frames as planes of YCbCr, their colours, pipes and containers."""
