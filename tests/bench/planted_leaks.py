"""Watches scripts by somebody who had not read the detectors, with a mistake each and clean; counts what is named.

    python -m tests.bench.planted_leaks OUT.json [NAME ...]

`tests/bench/planted/manifest.json` says what is wrong with which: the cause, others that an expert would accept, the
line, and other lines that a fix could begin at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from memory_harness.harness.log.environment import environment
from tests.bench.records import write_records

ROOT = Path(__file__).parents[2]
PLANTED = Path(__file__).parent / "planted"
NUM_AT_ONCE = 2
SECONDS = 300


def watch(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what `--watch` says of a script: its exit code, and cause, severity and place of each finding."""
    budget = ["--budget", entry["budget"]] if entry.get("budget") else []
    with TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run_probe.py"), "--device", "simulated", "--json", "r.json", *budget]
        ended = subprocess.run(
            [*command, "--watch", str(PLANTED / entry["file"])],
            cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        report = json.loads((Path(folder) / "r.json").read_text(encoding="utf-8"))
    findings = [[found["cause"], found["severity"], found["where"]] for found in report["findings"]]
    return {"file": entry["file"], "exit_code": ended.returncode, "findings": findings} | judged(entry, findings)


def judged(entry: dict[str, Any], findings: list[list[str]]) -> dict[str, Any]:
    """Return whether the cause and the line are among the findings that are more than a remark; of a clean one, both
    are that there are none."""
    told = [(cause, where or "") for cause, severity, where in findings if severity != "info"]
    if entry["cause"] is None:
        return {"cause": not told, "line": not told}
    causes = {entry["cause"], *entry["acceptable"]}
    lines = {entry["line"], *entry.get("alt_lines", [])}
    right = [where for cause, where in told if cause in causes]
    places = {f"{Path(entry['file']).name}:{line}" for line in lines}
    found = {Path(where.split(" ")[0]).name for where in right}
    return {"cause": bool(right), "line": bool(places & found)}


def main(out: str, *names: str) -> None:
    """Watch them all, or those whose names begin so, and write what came of it."""
    manifest = json.loads((PLANTED / "manifest.json").read_text(encoding="utf-8"))
    chosen = [entry for entry in manifest if not names or entry["file"].startswith(names)]
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        results = list(pool.map(watch, chosen))
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
