"""`srcli bench`: latencies of networks, and the facts needed to judge them.

The parent process (`runner`) imports no framework. Every backend runs in a process of its own
(`worker`), and rows take turns, because other work may share the machine: what disturbs one row
disturbs its neighbours too, and ratios stay true.
"""
