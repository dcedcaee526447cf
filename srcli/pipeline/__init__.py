"""Pictures through a network, in whatever parts fit in memory."""
