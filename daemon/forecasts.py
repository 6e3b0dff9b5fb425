"""The daemon's cycle of forecasts: asks its worker every quarter of an hour what is due, never two at once."""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec
import psycopg

from ..acquisition.io.clock import Clock
from ..protocols.common.errors import LinkError
from ..storage.config import StorageConfig
from ..storage.database import Database
from .forecast import due
from .forecast_config import ForecastConfig
from .forecast_worker import Made, Question

log = logging.getLogger(__name__)

PERIOD_S = 900
SETTLE_S = 60  # after the quarter: its newest readings are on their way
LIMIT_S = 3600.0
AGAIN_US = 4 * 3_600_000_000  # an object that could not be forecast is tried again after this


class ForecastCycle:
    """`step` is called by the scheduler; what the worker made stands in the database."""

    def __init__(self, database: Database, storage: StorageConfig, config: ForecastConfig, clock: Clock) -> None:
        self._database, self._storage, self._config, self._clock = database, storage, config, clock
        self._failed: dict[tuple[str, str], int] = {}

    @property
    def wanted(self) -> bool:
        """Whether anything is to be forecast at all."""
        return bool(self._config.objects or self._config.intraday)

    async def step(self) -> None:
        """Make what is due; a worker that does not end in an hour is ended."""
        now_us = self._clock.now_us()
        try:
            if not await asyncio.to_thread(self._anything, now_us):
                return
        except (psycopg.Error, LinkError) as error:
            log.warning("forecasts put off: %s", error)
            return
        question = Question(storage=self._storage, forecast=self._config, now_us=now_us, skip=self._skip(now_us))
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fuhe.daemon.forecast_worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(worker.communicate(msgspec.json.encode(question)), LIMIT_S)
        except TimeoutError:
            log.error("forecasts: the worker did not end in %d s", LIMIT_S)
            return
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        if worker.returncode:
            log.error("forecasts: the worker failed: %s", err.decode(errors="replace")[-2000:])
        for line in out.splitlines():
            made = msgspec.json.decode(line, type=Made)
            if made.error:
                self._failed[made.object, made.horizon] = now_us
            _tell(made)

    def _anything(self, now_us: int) -> bool:
        with self._database.connect(autocommit=True) as connection:
            return bool(set(due(connection, self._config, now_us)) - set(self._skip(now_us)))

    def _skip(self, now_us: int) -> tuple[tuple[str, str], ...]:
        return tuple(k for k, since in self._failed.items() if now_us - since < AGAIN_US)


def _tell(made: Made) -> None:
    place = {"object": made.object, "horizon": made.horizon}
    if made.error:
        log.warning("no forecast: %s", made.error, extra=place)
    else:
        log.info("forecast issued", extra={**place, "id": made.id})
    for text in made.warnings:
        log.warning("forecast: %s", text, extra=place)
