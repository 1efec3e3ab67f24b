"""Watches scripts by somebody who had not read the detectors, with a mistake each and clean; counts what is named.

    python -m tests.bench.planted_leaks FOLDER OUT.json [NAME ...]

FOLDER is `planted`, or `planted_second` to `planted_eighth`, beside this file. Its `manifest.json` says
what is wrong with which: the cause, others that an expert would accept, the line, and other lines that a fix could
begin at: numbers, or `file:line` in a module beside the script.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memory_harness.harness.log.environment import environment
from tests.bench.records import write_records

LIBRARIES = ["torch", "transformers", "peft", "accelerate", "memory_harness.reports.command"]
"""what each script's process, which is its own, has loaded when it begins"""
BENCH = Path(__file__).parent


def watch(planted: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Return what `--watch` says of a script: its exit code, and cause, severity and place of each finding."""
    from memory_harness.reports.entry import main as run_probe

    budget = ["--budget", entry["budget"]] if entry.get("budget") else []
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        with open("output.txt", "w", encoding="utf-8") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        command = ["--device", "simulated", "--json", "r.json", *budget, "--watch", str(planted / entry["file"])]
        code = run_probe(command)
        report = Path("r.json")
        found = json.loads(report.read_text(encoding="utf-8"))["findings"] if report.exists() else []
        os.chdir("/")
    findings = [[finding["cause"], finding["severity"], finding["where"]] for finding in found]
    return {"file": entry["file"], "exit_code": code, "findings": findings} | judged(entry, findings)


def judged(entry: dict[str, Any], findings: list[list[str]]) -> dict[str, Any]:
    """Return whether the cause and the line are among the findings that are more than a remark; of a clean one, both
    are that there are none."""
    told = [(cause, where or "") for cause, severity, where in findings if severity != "info"]
    if entry["cause"] is None:
        return {"cause": not told, "line": not told}
    causes = {entry["cause"], *entry["acceptable"]}
    lines = {entry["line"], *entry.get("alt_lines", [])}
    right = [where for cause, where in told if cause in causes]
    places = {line if isinstance(line, str) else f"{Path(entry['file']).name}:{line}" for line in lines}
    found = {Path(where.split(" ")[0]).name for where in right}
    return {"cause": bool(right), "line": bool(places & found)}


def main(folder: str, out: str, *names: str) -> None:
    """Watch them all, or those whose names begin so, and write what came of it."""
    planted_in = BENCH / folder
    manifest = json.loads((planted_in / "manifest.json").read_text(encoding="utf-8"))
    chosen = [entry for entry in manifest if not names or entry["file"].startswith(names)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    # no `multiprocessing.Pool`: its processes may start none, as scripts do whose data loaders have workers
    with ProcessPoolExecutor(mp_context=context, max_tasks_per_child=1) as pool:
        results = list(pool.map(partial(watch, planted_in), chosen))
    planted = [result for result in results if result["file"].startswith("leaks/")]
    clean = [result for result in results if result["file"].startswith("clean/")]
    counts = {
        "planted": len(planted),
        "cause": sum(result["cause"] for result in planted),
        "line": sum(result["line"] for result in planted),
        "clean": len(clean),
        "without_alarm": sum(result["cause"] for result in clean),
    }
    write_records(Path(out), {"environment": environment(), "counts": counts, "scripts": results}, 2)
    print(counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
