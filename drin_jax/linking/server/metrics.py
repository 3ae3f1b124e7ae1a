"""What the service counts, in Prometheus's text form."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

disable_created_metrics()  # a time of birth beside each number

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service. `waiting` tells how many mentions wait, `kb` is the linker's
    `kb.info`; both are asked when the metrics are read."""

    def __init__(self, waiting: Callable[[], float], kb: Callable[[], Mapping[str, Any]]):
        own: dict[str, Any] = {"registry": CollectorRegistry(), "namespace": "drin_jax"}
        self._registry = own["registry"]
        labels = ("method", "path", "status")
        self.requests = Counter("requests", "Requests that were answered.", labels, **own)
        self.seconds = Histogram(
            "request_seconds", "Until the answer is sent.", ("path",), buckets=SECONDS, **own
        )
        self.batches = Histogram("batch_size", "Mentions linked together.", buckets=SIZES, **own)
        self.mentions = Counter("mentions", "Mentions linked.", **own)
        self.nil = Counter("nil_mentions", "Mentions that mean no entity.", **own)
        queue = Gauge("queue_length", "Mentions that wait.", **own)
        queue.set_function(waiting)
        self._registry.register(_State(kb))

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request; `path` is its route's template."""
        self.requests.labels(method, path, status).inc()
        self.seconds.labels(path).observe(seconds)

    def linked(self, results: Iterable[Mapping[str, Any]]) -> None:
        """Count mentions, by their answers."""
        for result in results:
            self.mentions.inc()
            self.nil.inc(result["is_nil"])

    def text(self) -> bytes:
        """All of it, as /metrics shows it."""
        return generate_latest(self._registry)


class _State:
    """The knowledge base's size and generation."""

    def __init__(self, kb: Callable[[], Mapping[str, Any]]):
        self._kb = kb

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        info = self._kb()
        for name, what in (("entities", "Entities."), ("generation", "Changes so far.")):
            yield GaugeMetricFamily(f"drin_jax_kb_{name}", what, value=info[name])
