"""What a training run leaves for people: the generated replies and a summary of each experiment; never imports torch.

    GeneratedResponses.json, GeneratedResponses.csv     every reply of every run in the folder
    LLAMAExperiments.json                               every run: configuration, losses, metrics, memory

Each is appended to as a whole or not at all, and never in place of a file that this program has not written. What they
hold is laid down in `schemas/*.schema.json`. In the table, a cell that a spreadsheet would take for a formula begins
with an apostrophe (`configs.printable.cell_of`), which `text_of` takes off; the JSON holds every reply as it is.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.inputs import read_input
from memory_harness.configs.printable import cell_of, json_text
from memory_harness.configs.units import GIB
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.log import files as files_on_disk
from memory_harness.harness.log.files import check_writable, write_whole
from memory_harness.harness.log.locks import LockHeld, lock
from memory_harness.harness.log.records import EvalRecord, MetricsRecord, Outcome, RunRecord, StepRecord
from memory_harness.harness.log.runlog import RunLog
from memory_harness.harness.results.replies import VETTED, Reply

RESPONSES, RESPONSES_CSV, EXPERIMENTS = "GeneratedResponses.json", "GeneratedResponses.csv", "LLAMAExperiments.json"

VERSION = 1
"""of the files' layout; a file of another version is left alone"""
LISTS = {RESPONSES: "responses", EXPERIMENTS: "experiments"}
"""file -> the key of the list that is appended to"""
NEEDED = {
    "responses": ("experiment_id", "prompt_id", "sample_id", "question", "response", "answered_by"),
    "experiments": ("id",),
}
"""list -> what this program reads of each entry"""
CSV_COLUMNS = (
    "experiment_id", "prompt_id", "sample_id", "question", "response", "answered_by", "stopped", "num_tokens",
    "temperature", "top_p", "repetition_penalty", "max_new_tokens", "seed",
)  # fmt: skip


TRAIN_FIELDS = ("step", "epoch", "loss", "grad_norm", "learning_rate", "seconds")
EVAL_FIELDS = ("step", "epoch", "model", "loss", "target_tokens")
"""what an experiment tells of each step and each evaluation"""


def experiment_id(run: RunRecord) -> str:
    """Return what tells one run from all others: when it began, what it was, and what was drawn for it."""
    return "-".join(filter(None, (run.started_at, run.fingerprint, run.id)))


def check_artefacts(folder: Path) -> None:
    """Make sure, before a run, that all three files can be appended to.

    Raises:
        ConfigError: one of them is not ours, cannot be read, or cannot be written; it is left as it is.
    """
    for name in LISTS:
        _read_list(folder / name)
        _check_writable(folder / name)
    _read_csv(folder / RESPONSES_CSV)
    _check_writable(folder / RESPONSES_CSV)


def append_responses(
    folder: Path, run: RunRecord, data: Prepared, replies: Sequence[Reply], *, replace_earlier: bool = False
) -> None:
    """Append the replies to `GeneratedResponses.json` and `.csv`.

    Args:
        replace_earlier: leave out those of the same run that are there already.

    Raises:
        ConfigError: as `check_artefacts`.
    """
    entries = [_response(run, data, reply) for reply in replies]
    outdated = experiment_id(run) if replace_earlier else None
    _append_to_list(folder / RESPONSES, entries, lambda entry: entry.get("experiment_id") == outdated)
    path = folder / RESPONSES_CSV
    with _locked(path):
        before = _without_rows(_read_csv(path), outdated)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore")
        if not before:
            writer.writeheader()
        for entry in entries:
            cells = {**entry, **entry["settings"], "num_tokens": len(entry["token_ids"])}
            writer.writerow({name: cell_of(value) for name, value in cells.items()})
        # the mark tells spreadsheets that it is UTF-8
        _write_whole(path, (before or "\ufeff") + text.getvalue())


def append_experiment(folder: Path, log: RunLog, data: Prepared, artefacts: Mapping[str, str]) -> None:
    """Append the run to `LLAMAExperiments.json`, in place of what an earlier process wrote of the same folder.

    Args:
        folder: where the file is, or will be.
        log: of the run, as far as it got; its losses, metrics, peaks and environment are taken from it.
        data: what it trained on.
        artefacts: what -> where, such as `{"adapter": "runs/x/adapter", "log": "runs/x/train.jsonl"}`.

    Raises:
        ConfigError: as `check_artefacts`.
    """
    run = _folder_of(artefacts)
    _append_to_list(
        folder / EXPERIMENTS,
        [_experiment(log, data, artefacts)],
        lambda entry: (
            run is not None and _folder_of(entry.get("artefacts", {})) == run and entry["id"] == experiment_id(log.run)
        ),
    )


def is_written_down(run: Path) -> bool:
    """Return whether the experiments beside a run's folder have it as completed.

    Raises:
        ConfigError: the file is not ours or cannot be read.
    """
    entries = _read_list(run.parent / EXPERIMENTS)
    completed = [entry for entry in entries if entry.get("outcome") == Outcome.COMPLETED]
    return any(_folder_of(entry.get("artefacts", {})) == run.name for entry in completed)


def _folder_of(artefacts: Mapping[str, str]) -> str | None:
    """Return the name of a run's folder: what tells it from the others beside it, wherever that is."""
    if "log" not in artefacts:
        return None
    return Path(artefacts["log"]).parent.name


def _response(run: RunRecord, data: Prepared, reply: Reply) -> dict[str, Any]:
    prompt, drawing = data.prompts[reply.prompt], run.config["generation"]
    settings = {name: drawing[name] for name in ("temperature", "top_p", "repetition_penalty")}
    settings |= {"max_new_tokens": run.config["eval"]["max_new_tokens"], "seed": reply.seed}
    return {
        "experiment_id": experiment_id(run),
        "prompt_id": reply.prompt,
        "sample_id": reply.sample,
        "question": prompt.question,
        "response": reply.text,
        "references": list(prompt.references),
        "token_ids": list(reply.token_ids),
        "answered_by": reply.answered_by,
        "stopped": reply.stopped,
        # nobody drew a vetted reply
        "settings": dict.fromkeys(settings) if reply.answered_by == VETTED else settings,
    }


def _experiment(log: RunLog, data: Prepared, artefacts: Mapping[str, str]) -> dict[str, Any]:
    run = log.run
    return {
        "id": experiment_id(run),
        "source": run.source,
        "outcome": str(log.outcome),
        "started_at": run.started_at,
        "finished_at": _finished_at(log),
        "fingerprint": run.fingerprint,
        "config": run.config,
        "lora": run.config["lora"],
        "model": None if run.model is None else vars(run.model),
        "data": {
            "corpus": run.corpus,
            "rows": data.read_report.num_rows,
            "fates": data.fates,
            "personal_data_replaced": data.clean_report.placeholders,
            "tokenizer": data.tokenizer.name,
        },
        "steps": {"done": log.last_step, "total": run.total_steps},
        "losses": {
            "train": [_fields(record, TRAIN_FIELDS) for record in log.steps],
            "eval": [_fields(record, EVAL_FIELDS) for record in log.evals],
        },
        "metrics": {record.model: _metrics(record) for record in log.metrics},
        "memory": _memory(log),
        "environment": run.environment,
        "artefacts": dict(artefacts),
    }


def _finished_at(log: RunLog) -> str | None:
    """Return when the run ended, or None where its log was cut off."""
    if log.end is None:
        return None
    began = log.run.resumed_at or log.run.started_at
    end = datetime.fromisoformat(began) + timedelta(seconds=log.end.seconds)
    return end.isoformat(timespec="seconds")


def _fields(record: StepRecord | EvalRecord, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _metrics(record: MetricsRecord) -> dict[str, Any]:
    scores = dict(vars(record))
    del scores["kind"], scores["model"]
    return scores


def _memory(log: RunLog) -> dict[str, Any]:
    phases = {}
    for phase, stats in log.peaks().items():
        peaks = {"allocated_bytes": stats.peak_allocated_bytes, "reserved_bytes": stats.peak_reserved_bytes}
        phases[str(phase)] = peaks
    return {
        "gpu": log.run.gpu_name,
        "budget_bytes": log.run.budget_bytes,
        "peak_allocated_bytes": log.peak_allocated_bytes,
        "peak_reserved_bytes": log.peak_reserved_bytes,
        "peak_reserved": f"{log.peak_reserved_bytes / GIB:.2f} GiB",
        "phases": phases,
        "num_ooms": len(log.ooms),
    }


def read_responses(folder: Path) -> list[dict[str, Any]]:
    """Return every reply in the folder's `GeneratedResponses.json`, oldest first; none where there is no such file.

    Raises:
        ConfigError: the file is not ours or cannot be read.
    """
    return _read_list(folder / RESPONSES)


def write_new(files: Mapping[Path, str]) -> None:
    """Write files that are not there yet.

    Raises:
        ConfigError: one of them is there, or cannot be written.
    """
    for path in files:
        if os.path.lexists(path):
            raise _exists(path)
    for path, text in files.items():
        try:
            files_on_disk.write_new(path, text)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            raise _unwritable(path, error) from None


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path} exists and is left as it is; move it away first")


def _append_to_list(
    path: Path, entries: Sequence[Mapping[str, Any]], is_outdated: Callable[[dict[str, Any]], bool]
) -> None:
    key = LISTS[path.name]
    with _locked(path):
        content = _read_content(path)
        before = [entry for entry in content[key] if not is_outdated(entry)]
        _write_whole(path, json_text({**content, key: [*before, *entries]}, indent=1))


def _read_list(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = _read_content(path)[LISTS[path.name]]
    return entries


def _read_content(path: Path) -> dict[str, Any]:
    """Return what a file holds, what others have added to it included; an empty list where there is no file."""
    text, key = _read(path), LISTS[path.name]
    if text is None:
        return {"schema_version": VERSION, key: []}
    try:
        content = json.loads(text, parse_constant=_no_json)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except (ValueError, RecursionError) as error:
        raise _not_ours(path, f"not valid JSON: {error}") from None
    if not isinstance(content, dict) or "schema_version" not in content:
        raise _not_ours(path, "no schema_version")
    if content["schema_version"] != VERSION:
        raise _not_ours(path, f"schema_version {content['schema_version']}; this release writes {VERSION}")
    entries = content.get(key)
    if not isinstance(entries, list):
        raise _not_ours(path, f"no list of {key}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not set(NEEDED[key]) <= set(entry):
            raise _not_ours(path, f"number {number} of {key} lacks one of {', '.join(NEEDED[key])}")
    return content


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _read_csv(path: Path) -> str:
    """Return the file's content, or nothing where there is none."""
    text = _read(path)
    if text is None:
        return ""
    try:
        rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    except csv.Error as error:
        raise _not_ours(path, str(error)) from None
    if not rows or rows[0] != list(CSV_COLUMNS):
        raise _not_ours(path, "other columns")
    for number, row in enumerate(rows, 1):
        if row and len(row) != len(CSV_COLUMNS):
            raise _not_ours(path, f"row {number} has not all columns")  # what is appended would become part of it
    if text.endswith("\n"):
        return text
    return text + "\r\n"


def _without_rows(text: str, outdated: str | None) -> str:
    """Return the text of a CSV without an experiment's rows."""
    if outdated is None or outdated not in text:
        return text
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    kept = io.StringIO(newline="")
    csv.writer(kept).writerows(row for row in rows if row[:1] != [outdated])
    return "\ufeff" + kept.getvalue()


def _read(path: Path) -> str | None:
    """Return the text of a file, line ends as they are; None where there is no file."""
    try:
        return read_input(path).decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise _not_ours(path, "not UTF-8") from None
    except OSError as error:
        raise _not_ours(path, error.strerror or str(error)) from None


def _not_ours(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} exists and is no such file of this program ({reason}); it is left as it is:"
        " move it away, or give another folder with --output"
    )


def _check_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            check_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def _locked(path: Path) -> AcquireReturnProxy:
    """Keep other runs that append to the same file waiting, to the end of a `with`."""
    file = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return lock(file)
    except LockHeld as error:
        raise ConfigError(
            f"{path}: {error} holds {file.name} and does not let go; end it, or give another folder with --output"
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None


def _write_whole(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be written ({error.strerror}); give another folder with --output")
