"""What the probe of each folder of models costs, and how it ends: seconds of CPU of all its processes.

    python -m tests.bench.folder_cost FOLDER OUT.json [NAME ...]

FOLDER holds a folder for each model, with its config.json; NAMEs are those to probe, all without any. Each is asked
for with 200 samples on a Tesla T4, in turn: load on the machine lengthens the seconds.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from memory_harness.harness.log.environment import environment
from tests.bench.records import write_records
from tests.e2e.commands import run_probe


def cost_of(folder: Path) -> dict[str, Any]:
    """Return the exit code of a probe, its seconds of CPU, and its line where it was refused."""
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory() as output:
        ended = run_probe("--model", str(folder), "--samples", "200", "--gpu", "t4", folder=Path(output))
    seconds = round(_cpu_seconds() - before, 1)
    found: dict[str, Any] = {"model": folder.name, "exit_code": ended.code, "cpu_seconds": seconds}
    return found if ended.code != 2 else {**found, "refused": ended.stderr.strip().replace(str(folder), folder.name)}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Probe the folders and write what each took."""
    models, out, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    folders = sorted(config.parent for config in models.glob("*/config.json"))
    costs = []
    for folder in folders:
        if not names or folder.name in names:
            costs.append(cost_of(folder.resolve()))
            print(costs[-1], flush=True)
    write_records(out, {"environment": environment(), "costs": costs}, num_levels=2)


if __name__ == "__main__":
    main()
