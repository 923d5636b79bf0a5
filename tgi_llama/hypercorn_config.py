"""Settings that Hypercorn's own command needs: ``-c python:tgi_llama.hypercorn_config``.

Its options on the command line come on top.
"""

worker_class = "trio"

startup_timeout = float("inf")
"""Seconds: without limit, where Hypercorn's own is 60. A first start may download and convert a
model; whoever starts the server knows how long that may take."""
