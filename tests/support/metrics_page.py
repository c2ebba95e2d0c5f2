"""Reads `/metrics` as Prometheus would, with the parser of the official client."""

from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.support.running_relay import Running


class Scrape(NamedTuple):
    """All samples of one scrape: (name, sorted labels) to value."""

    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]

    def __call__(self, name: str, **labels: str) -> float:
        """Return one sample. Raises `KeyError` when there is none with exactly these labels."""
        return self.samples[(name, tuple(sorted(labels.items())))]

    def labels(self, name: str) -> set[tuple[tuple[str, str], ...]]:
        """Return the label sets of a metric."""
        return {labels for other, labels in self.samples if other == name}


def parse(text: str) -> Scrape:
    """Parse the text format."""
    return Scrape(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


async def scrape(relay: Running) -> Scrape:
    """Read a relay's metrics."""
    answer = await relay.get("/metrics")
    assert answer.status == 200, answer.text
    return parse(answer.text)
