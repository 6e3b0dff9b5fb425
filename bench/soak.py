"""`make soak`: two long trials. Kills: a polling daemon is killed 100 times. Fuzz: 10 million inputs to each framer.

python -m bench.soak [--kills 100] [--inputs 10000000] [--seed N] [--only kills|fuzz] [--targets dlt645 mqtt ...]
python -m bench.soak --only fuzz --targets mqtt --chunk 17      one chunk again, as a failure names it

Progress goes to standard error, the summary is one JSON object on standard output; exit status 1 when a promise broke.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

from . import fuzz, killing

CHUNK: Final = 50_000
TRACED: Final = 5_000  # inputs whose leavings are measured object by object
HANG_S: Final = 300.0  # a chunk takes seconds; one that takes minutes hangs: its traceback is printed, the trial fails
RESIDENT_KB: Final = 24_576  # a worker may grow by so much after its first chunk: caches and the allocator's habits
_first: dict[str, int] = {}  # in a worker: resident kB after the first chunk of a target


def work(name: str, n: int, seed: int, chunk: int) -> dict[str, int]:
    """In a worker: one chunk under a watchdog, and how much the process has grown since its first one."""
    faulthandler.dump_traceback_later(HANG_S, exit=True)
    try:
        target = fuzz.targets()[name]
        counts = {**fuzz.fuzz(target, n, seed=seed, chunk=chunk)}
        if name not in _first:
            counts["traced_bytes"] = fuzz.growth(target, min(n, TRACED), seed=seed, chunk=chunk)
            _first[name] = fuzz.resident_kb()
        grown = fuzz.resident_kb() - _first[name]
        if grown > RESIDENT_KB:
            raise fuzz.Broken(f"{name}: {grown} kB more resident memory after chunk {chunk} than after the first")
        return {**counts, "grown_kb": max(grown, 0)}
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_fuzz(
    names: Sequence[str], inputs: int, seed: int, *, processes: int, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """`inputs` to each target over several processes; the counts of each. Broken names the input, or the chunk."""
    report: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for name in names:
        begun = told = time.monotonic()
        sums: dict[str, int] = {}
        sizes = [min(CHUNK, inputs - start) for start in range(0, inputs, CHUNK)]
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            jobs = {pool.submit(work, name, n, seed, chunk): chunk for chunk, n in enumerate(sizes)}
            try:
                for job in as_completed(jobs):
                    for key, value in job.result().items():
                        most = key in ("grown_kb", "traced_bytes")
                        sums[key] = max(sums.get(key, 0), value) if most else sums.get(key, 0) + value
                    if time.monotonic() - told > 15:
                        told = time.monotonic()
                        say(
                            f"{name}: {sums['inputs']:,} of {inputs:,} inputs, {sums['inputs'] / (told - begun):,.0f}/s"
                        )
            except BrokenProcessPool as error:
                open_chunks = sorted(chunk for job, chunk in jobs.items() if not job.done() or job.exception())
                raise fuzz.Broken(f"{name}: a worker hung or died in chunk {open_chunks[: processes + 1]}") from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        seconds = time.monotonic() - begun
        report[name] = {**sums, "seconds": round(seconds, 1), "inputs_per_s": round(inputs / seconds)}
        say(f"{name}: {report[name]}")
    return report


def main() -> int:
    """Both trials, or the one named."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=10_000_000, help="inputs to each framer and parser")
    parser.add_argument("--seed", type=int, default=645)
    parser.add_argument("--only", choices=("kills", "fuzz"))
    parser.add_argument("--targets", nargs="+", choices=fuzz.names(), default=fuzz.names())
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--chunk", type=int, help="only this chunk of the fuzz, in this process")
    chosen = parser.parse_args()
    summary: dict[str, Any] = {}

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        if chosen.chunk is not None:
            summary["fuzz"] = {n: work(n, CHUNK, chosen.seed, chosen.chunk) for n in chosen.targets}
        elif chosen.only != "kills":
            summary["fuzz"] = run_fuzz(chosen.targets, chosen.inputs, chosen.seed, processes=chosen.processes, say=say)
        if chosen.only != "fuzz" and chosen.chunk is None:
            summary["kills"] = killing.run(chosen.kills, chosen.seed, say=say)
    except (fuzz.Broken, killing.Failure) as error:
        summary["broken"] = [str(error), *getattr(error, "__notes__", ())]
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    return 1 if "broken" in summary else 0


if __name__ == "__main__":
    sys.exit(main())
