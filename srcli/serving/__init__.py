"""The service: a page for people and HTTP for programs, in front of the networks.

A request goes through `guards` (who may ask), `bodies` (its bytes, within limits), `lanes` (its
turn) and `restoring` (the work, as the commands do it); `application` joins them, and `server` runs
it.
"""
