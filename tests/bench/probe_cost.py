"""What the default probe itself costs: seconds and peak resident memory of all its processes.

python -m tests.bench.probe_cost [another run_probe argument ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from memory_harness.configs.units import format_bytes
from tests.e2e.commands import run_probe

DEFAULT = ("--max-length", "2048", "--samples", "4000")


def main() -> None:
    """Run the probe in a folder of its own and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        ended = run_probe(*DEFAULT, *sys.argv[1:], folder=Path(folder))
    load = os.getloadavg()[0]
    print(f"exit code {ended.code}, {ended.seconds:.1f} s, peak RSS {format_bytes(ended.peak_rss_bytes)}", end="; ")
    print(f"{len(os.sched_getaffinity(0))} cores, load over the last minute {load:.2f} (1 to 2 when nothing else runs)")


if __name__ == "__main__":
    main()
