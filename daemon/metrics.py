"""Prometheus metrics of journal, writer and mode, read when scraped. The links' are in acquisition/io/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..storage.journal import Journal
from ..storage.writer import JournalWriter
from .modes import Mode, ModeKeeper


class DaemonMetrics(Collector):
    """Register once."""

    def __init__(self, journal: Journal, writer: JournalWriter, modes: ModeKeeper) -> None:
        self._journal, self._writer, self._modes = journal, writer, modes

    def collect(self) -> Iterator[Metric]:
        """Every family with the values of now."""
        journal, counters = self._journal.state(), self._writer.counters
        for name, text, value in (
            ("fuhe_journal_bytes", "Durable bytes not committed to the database yet", journal.depth_bytes),
            ("fuhe_journal_records", "Durable records not committed to the database yet", journal.depth_records),
            ("fuhe_journal_oldest_seconds", "Age of the oldest of them", journal.oldest_s),
            ("fuhe_journal_failing", "1 while the disk refuses", int(journal.failing)),
        ):
            gauge = GaugeMetricFamily(name, text)
            gauge.add_metric([], value)
            yield gauge
        for name, text, value in (
            ("fuhe_journal_refused", "Records refused because the journal was full or failing", journal.refused),
            ("fuhe_journal_damaged_bytes", "Bytes of damaged records put aside", journal.damaged_bytes),
            ("fuhe_written_samples", "Samples written", counters.samples),
            ("fuhe_written_repeated", "Samples that were there already", counters.repeated),
            ("fuhe_written_curve_rows", "Curve days written or merged", counters.curve_rows),
            ("fuhe_written_conflicts", "Curve slots that came again with another value", counters.conflicts),
            ("fuhe_writer_commits", "Transactions", counters.commits),
            ("fuhe_writer_outages", "Times the database was away", counters.outages),
            ("fuhe_writer_rejected", "Records the database refused for their content", counters.rejected),
        ):
            counter = CounterMetricFamily(name, text)
            counter.add_metric([], value)
            yield counter
        mode = GaugeMetricFamily("fuhe_mode", "1 for the mode in force", labels=["mode"])
        for one in Mode:
            mode.add_metric([one.name], int(self._modes.mode is one))
        yield mode
