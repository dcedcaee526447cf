"""Figures about a service, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from srcli.serving.bodies import Held
from srcli.serving.lanes import Lanes
from srcli.serving.restoring import Answer

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Figures:
    """Counters and gauges of one service.

    Args:
        lanes: Asked for what waits and works.
        held: Asked for the bytes that are held.
    """

    def __init__(self, lanes: Lanes, held: Held) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "srcli_requests", "Answers by route and status.", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "srcli_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self._network = Histogram(
            "srcli_network_seconds",
            "Time of a picture in the networks.",
            ("task", "model"),
            buckets=SECONDS,
            registry=registry,
        )
        self._pixels = Counter(
            "srcli_output_pixels",
            "Pixels of all results.",
            ("task", "model"),
            registry=registry,
        )
        gauges = {
            "srcli_pictures_waiting": ("Pictures in the queue.", lambda: lanes.waiting),
            "srcli_pictures_working": ("Pictures in lanes.", lambda: lanes.working),
            "srcli_lanes": ("Lanes.", lambda: lanes.lanes),
            "srcli_held_bytes": ("Bytes held for clients.", lambda: held.bytes),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=registry).set_function(value)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_picture(self, task: str, model: str, answer: Answer) -> None:
        """Count a picture that was restored."""
        self._network.labels(task, model).observe(answer.seconds)
        self._pixels.labels(task, model).inc(answer.width * answer.height)

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        content: bytes = generate_latest(self._registry)
        return content
