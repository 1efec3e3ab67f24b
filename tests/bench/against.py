"""What upgrading transformers changes for a few models: `run_probe.py --against`, which is simulated.

python -m tests.bench.against OUT

Fetches transformers 5.17 with pip, unless its layer is in the cache.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from memory_harness.reports.entry import main
from tests.bench.records import write_records

MODELS = Path(__file__).parents[1] / "models"
AGAINST = "transformers==5.17"
NUM_LINES = 12
"""lines of code of each model that are kept"""

CASES = {
    "llama-3.1-8b": ("--gpu", "t4", "--max-length", "2048", "--samples", "600"),
    "granite-4.0-h-tiny": ("--gpu", "a100-80gb", "--max-length", "1024", "--samples", "60"),
}
"""flags by model: a name of `models.toml`, or of a file in `tests/models`"""


def compared(model: str, flags: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Return what the command says of a model, without what is the same in both."""
    given, out = MODELS / f"{model}.json", folder / f"{model}.report.json"
    if given.exists():
        (folder / model).mkdir()
        shutil.copy(given, folder / model / "config.json")
    named = str(folder / model) if given.exists() else model
    code = main(["--against", AGAINST, "--model", named, *flags, "--output", str(folder), "--json", str(out)])
    report = json.loads(out.read_text(encoding="utf-8"))
    return {
        "flags": " ".join(flags),
        "exit_code": code,
        "verdict": report["verdict"],
        "sentence": report["sentence"],
        "differences": [one for one in report["differences"] if one["name"] in ("transformers", "torch")],
        "changes": [one for one in report["changes"] if one["before"] != one["after"]],
        "peak_by_category": [one for one in report["peak_by_category"] if one["difference_bytes"]],
        "peak_by_line": report["peak_by_line"][:NUM_LINES],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = {model: compared(model, flags, Path(place)) for model, flags in CASES.items()}
    write_records(Path(sys.argv[1]), {"against": AGAINST, "models": found}, 4)
