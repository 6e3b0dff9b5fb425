"""Prometheus metrics of journal, writer and mode, read when scraped. The links' are in acquisition/io/metrics.py."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..storage.journal import Journal
from ..storage.writer import JournalWriter
from .modes import Mode, ModeKeeper
from .vee import VeeCounters


class DaemonMetrics(Collector):
    """Register once."""

    def __init__(self, journal: Journal, writer: JournalWriter, modes: ModeKeeper, vee: VeeCounters) -> None:
        self._journal, self._writer, self._modes, self._vee = journal, writer, modes, vee

    def collect(self) -> Iterator[Metric]:
        """Every family with the values of now."""
        journal, counters = self._journal.state(), self._writer.counters
        for name, text, value in (
            ("fuhe_journal_bytes", "Durable bytes not committed to the database yet", journal.depth_bytes),
            ("fuhe_journal_records", "Durable records not committed to the database yet", journal.depth_records),
            ("fuhe_journal_oldest_seconds", "Age of the oldest of them", journal.oldest_s),
            ("fuhe_journal_failing", "1 while the disk refuses", int(journal.failing)),
            ("fuhe_vee_waiting", "Days of points that wait to be judged", self._vee.waiting),
            ("fuhe_vee_oldest_seconds", "How long the oldest of them waits", self._vee.oldest_s),
            ("fuhe_vee_chunk_seconds", "What the last chunk took", self._vee.last_chunk_s),
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
            ("fuhe_vee_days", "Days of points judged", self._vee.days),
            ("fuhe_vee_versions", "Versions of days written", self._vee.versions),
            ("fuhe_vee_failed", "Days that could not be judged for what they contain", self._vee.failed),
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
