"""Prometheus metrics of the engine, collected from its counters when asked for; a label per link, never per device.

The lines of one listener or broker (one for each modem or device) are summed under the link's name. The hot path counts
in plain integers; nothing of this module runs unless someone scrapes.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

from ...model.work import LinkCounters, Priority
from .engine import Engine, LinkState

COUNTERS = {
    "requests": "Requests sent",
    "replies": "Requests answered (or messages received)",
    "silences": "Requests not answered in time",
    "tx_bytes": "Bytes sent",
    "rx_bytes": "Bytes received",
    "skipped_bytes": "Bytes received that nobody waited for",
    "reconnects": "Attempts to reopen",
    "refused_writes": "Writes stopped by read-only mode",
    "queue_full": "Items refused because the queue was full",
    "late_replies": "Answers that came after their request had been given up",
    "rejected": "Dial-in connections or messages turned away",
}


class EngineMetrics(MetricsCollector):
    """Register it once: `REGISTRY.register(EngineMetrics(engine))`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Every family with the values of now."""
        links: dict[str, list[LinkState]] = {}
        for state in self._engine.link_states():
            links.setdefault(state.name.partition("/")[0], []).append(state)
        totals = {name: _total(states) for name, states in links.items()}
        for field, text in COUNTERS.items():
            family = CounterMetricFamily(f"fuhe_link_{field}", text, labels=["link"])
            for name, total in totals.items():
                family.add_metric([name], getattr(total, field))
            yield family
        items = CounterMetricFamily("fuhe_link_items", "Work items ended", labels=["link", "status"])
        up = GaugeMetricFamily("fuhe_link_up", "Open lines of the link", labels=["link"])
        lines = GaugeMetricFamily("fuhe_link_lines", "Lines of the link", labels=["link"])
        silent = GaugeMetricFamily("fuhe_link_quarantined", "Quarantined devices", labels=["link"])
        depth = GaugeMetricFamily("fuhe_link_queue_items", "Waiting items", labels=["link", "priority"])
        age = GaugeMetricFamily("fuhe_link_queue_oldest_seconds", "Age of the item that waits longest", labels=["link"])
        for name, states in links.items():
            for status, n in sorted(totals[name].by_status.items()):
                items.add_metric([name, status], n)
            up.add_metric([name], sum(s.lines_up for s in states))
            lines.add_metric([name], sum(s.lines for s in states))
            silent.add_metric([name], sum(s.quarantined for s in states))
            age.add_metric([name], max(s.oldest_age_s for s in states))
            for priority in Priority:
                depth.add_metric([name, priority.name.lower()], sum(s.depth[priority] for s in states))
        yield from (items, up, lines, silent, depth, age)
        collector = self._engine.collector
        waiting = GaugeMetricFamily("fuhe_delivery_waiting_values", "Values read that are not in the journal yet")
        waiting.add_metric([], collector.values)
        failed = CounterMetricFamily("fuhe_delivery_failures", "Deliveries that the journal refused")
        failed.add_metric([], collector.failures)
        delivered = CounterMetricFamily("fuhe_delivery_values", "Values delivered to the journal")
        delivered.add_metric([], collector.delivered_values)
        yield from (waiting, failed, delivered)
        yield from self._terminals()

    def _terminals(self) -> Iterator[Metric]:
        terminals = self._engine.terminals
        frames = CounterMetricFamily("fuhe_terminal_frames", "Frames of terminals beside answers", labels=["kind"])
        for kind, n in (
            ("report", terminals.reports), ("repeated", terminals.repeats), ("put_off", terminals.put_off),
            ("unreadable", terminals.broken), ("foreign", terminals.foreign),
        ):  # fmt: skip
            frames.add_metric([kind], n)
        known = GaugeMetricFamily("fuhe_terminal_unknown", "Terminals that called and are not served")
        known.add_metric([], len(terminals.unknown))
        held = GaugeMetricFamily("fuhe_terminal_held", "Connections of such terminals")
        held.add_metric([], len(terminals.held))
        refused = CounterMetricFamily("fuhe_terminal_refused", "Connections of unknown terminals without room")
        refused.add_metric([], terminals.unknown.refused)
        yield from (frames, known, held, refused)


def _total(states: list[LinkState]) -> LinkCounters:
    total = LinkCounters()
    for state in states:
        for name in COUNTERS:
            setattr(total, name, getattr(total, name) + getattr(state.counters, name))
        for status, n in state.counters.by_status.items():
            total.by_status[status] = total.by_status.get(status, 0) + n
    return total
