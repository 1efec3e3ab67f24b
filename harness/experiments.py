"""What a training run leaves for people: the generated replies and a summary of each experiment; never imports torch.

    GeneratedResponses.json, GeneratedResponses.csv     every reply of every run in the folder
    LLAMAExperiments.json                               every run: configuration, losses, metrics, memory

Each is appended to as a whole or not at all, and never in place of a file that this program has not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.data import Prepared
from harness.records import RunRecord
from harness.replies import Reply
from harness.runlog import RunLog


def check_artefacts(folder: Path) -> None:
    """Make sure, before a run, that all three files can be appended to.

    Raises:
        ConfigError: one of them is not ours, cannot be read, or cannot be written; it is left as it is.
    """
    raise NotImplementedError


def append_responses(folder: Path, run: RunRecord, data: Prepared, replies: Sequence[Reply]) -> None:
    """Append the replies to `GeneratedResponses.json` and `.csv`.

    Raises:
        ConfigError: as `check_artefacts`.
    """
    raise NotImplementedError


def append_experiment(folder: Path, log: RunLog, data: Prepared, artefacts: Mapping[str, str]) -> None:
    """Append the run to `LLAMAExperiments.json`.

    Args:
        folder: where the file is, or will be.
        log: of the run, as far as it got; its losses, metrics, peaks and environment are taken from it.
        data: what it trained on.
        artefacts: what -> where, such as `{"adapter": "runs/x/adapter", "log": "runs/x/train.jsonl"}`.

    Raises:
        ConfigError: as `check_artefacts`.
    """
    raise NotImplementedError
