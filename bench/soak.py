"""`make soak`: the two long trials. Kills: a polling daemon is killed 100 times. Fuzz: 10 million inputs a framer.

python -m bench.soak [--kills 100] [--inputs 10000000] [--seed N] [--only kills|fuzz]

Progress goes to standard error, the summary is one JSON object on standard output; exit status 1 names what broke.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import killing


def main() -> int:
    """Both trials, or the one named."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=10_000_000, help="inputs for each framer")
    parser.add_argument("--seed", type=int, default=645)
    parser.add_argument("--only", choices=("kills", "fuzz"))
    chosen = parser.parse_args()
    summary: dict[str, Any] = {}

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if chosen.only != "fuzz":
        summary["kills"] = killing.run(chosen.kills, chosen.seed, say=say)
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
