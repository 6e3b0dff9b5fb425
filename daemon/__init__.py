"""The composition root: configuration, `fuhe run`, degraded modes, logs, metrics and health."""
