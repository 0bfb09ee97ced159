"""Metrics as Prometheus reads them, for tests."""

import urllib.request
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


def scrape(address: str) -> list[Metric]:
    """The families that are served at ``address``, ``HOST:PORT``, in the text format."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def total(families: Iterable[Metric], name: str, /, **labels: str) -> float:
    """The sum of all samples of ``name`` that have these labels among theirs; 0 without one."""
    samples = (sample for family in families for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
