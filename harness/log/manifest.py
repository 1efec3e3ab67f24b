"""What a checkpoint folder says of itself: where the run was, of which configuration, and the checksum of every file.

A folder is a checkpoint only once its manifest is there, whole, and agrees with the files beside it. Never imports
torch, so that a command can refuse a checkpoint at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from memory_harness.configs.inputs import MAX_TEXT_BYTES, open_input, read_input
from memory_harness.configs.preset import CHECKPOINT_MANIFEST, RUN_CONFIG
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.files import replaced_folders, restore_replaced
from memory_harness.harness.log.records import Count, Size

LOG_FILE, CONFIG_FILE, LOCK_FILE, ADAPTER = "run.jsonl", RUN_CONFIG, "run.lock", "adapter"
"""in the folder of a training run; the last is a folder with the adapter that did best"""

PEER_LOG_FILE = "run.rank{rank}.jsonl"  # log of each of several GPUs but the first, whose log is that of the run

MANIFEST_FILE = CHECKPOINT_MANIFEST
MANIFEST_VERSION = 1

FREE_SECTIONS = ("device", "output")  # may change between two parts of a run: where it runs and where results go


@dataclass(frozen=True)
class BatchLimits:
    """The most that has fitted since memory ran out; None where it has not."""

    train_tokens: Count | None = None  # padded tokens of a micro-batch of several sequences
    eval_tokens: Count | None = None  # padded tokens of an evaluation batch of several sequences
    generate_tokens: Count | None = None  # padded tokens of several prompts answered at once


@dataclass(frozen=True)
class Position:
    """Where a run is between two optimizer steps."""

    step: Count = 0
    epoch: Count = 1
    steps_in_epoch: Count = 0  # steps of the epoch that are done: where the sampler goes on
    pending: bool = False  # whether what follows the step (evaluation, checkpoint) is still to be done
    limits: BatchLimits = BatchLimits()


START = Position()


@dataclass(frozen=True)
class FileSum:
    """How large a file is, and its checksum."""

    bytes: Size
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    position: Position
    config: dict[str, dict[str, Any]]
    fingerprint: str
    data_digest: str  # of the prepared samples: a corpus that has changed would be sampled differently
    environment: dict[str, str]
    log_bytes: Size = 0  # size of the log when the checkpoint began
    files: dict[str, FileSum] = field(default_factory=dict)  # by name
    schema_version: int = MANIFEST_VERSION


def manifest_text(manifest: Manifest) -> str:
    """Return the manifest as JSON, with a checksum of its own."""
    content = dataclasses.asdict(manifest)
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a checkpoint whose files are all as they were written.

    Raises:
        CheckpointError: the folder is missing, no checkpoint, damaged, or of a newer release.
    """
    if not folder.is_dir():
        raise _refused(folder, "no such checkpoint")
    content = _content(folder)
    checksum, version = content.pop("checksum"), content["schema_version"]
    if version > MANIFEST_VERSION:
        versions = f"checkpoint version {version}; this one reads up to {MANIFEST_VERSION}"
        raise _refused(folder, f"written by a newer release ({versions}); update")
    if checksum != _checksum(content):
        raise _damaged(folder, f"{MANIFEST_FILE} does not match its checksum")
    try:
        manifest = msgspec.convert(content, Manifest)
    except msgspec.ValidationError:  # whole, but written by hand or by another program
        raise _damaged(folder, f"{MANIFEST_FILE} holds something else than a manifest does") from None
    for name, expected in manifest.files.items():
        _check_file(folder, name, expected)
    return manifest


def _content(folder: Path) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(read_input(folder / MANIFEST_FILE, MAX_TEXT_BYTES))
    except FileNotFoundError:
        raise _refused(folder, f"not a checkpoint of this program (it has no {MANIFEST_FILE})") from None
    except OSError as error:
        raise _refused(folder, f"{MANIFEST_FILE} cannot be read ({error.strerror})") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _damaged(folder, f"{MANIFEST_FILE} is not whole") from None
    if not isinstance(content, dict) or "checksum" not in content or not isinstance(content.get("schema_version"), int):
        raise _refused(folder, f"not a checkpoint of this program (its {MANIFEST_FILE} is another one's)")
    return content


def _check_file(folder: Path, name: str, expected: FileSum) -> None:
    try:
        found = sum_of(folder / name)
    except FileNotFoundError:
        raise _damaged(folder, f"{name} is missing") from None
    except OSError as error:
        raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from None
    if found.bytes != expected.bytes:
        raise _damaged(folder, f"{name} has {found.bytes} bytes of {expected.bytes}")
    if found != expected:
        raise _damaged(folder, f"{name} does not match its checksum")


def _damaged(folder: Path, what: str) -> CheckpointError:
    return _refused(folder, f"the checkpoint is damaged: {what}")


def _refused(folder: Path, why: str) -> CheckpointError:
    """Return the error for a folder that is no usable checkpoint; it says what else could be given."""
    others = [path.name for path in checkpoints(folder.parent) if path != folder]
    beside = f"beside it: {', '.join(others)}" if others else "nothing else is there to resume from"
    return CheckpointError(f"--resume {folder}: {why}; {beside}")


def sum_of(path: Path) -> FileSum:
    """Return the size and the checksum of a file. Raises OSError: it is missing, or no file."""
    with open_input(path) as file:
        return FileSum(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first; unfinished ones have another name."""
    found = []
    for path in folder.glob("checkpoint-*"):
        step = path.name.partition("-")[2]
        if step.isdecimal():
            found.append((int(step), path))
    return [path for _, path in sorted(found)]


def newest_checkpoint(run: Path) -> Path:
    """Return the checkpoint to resume a run folder from: `run` itself where it is one.

    Raises:
        CheckpointError: there is none.
    """
    if (run / MANIFEST_FILE).exists() or not run.is_dir() or run.name.startswith("checkpoint-"):
        return run  # read_manifest says what is wrong with it
    for folder in replaced_folders(run, "checkpoint-*"):  # it was killed while it wrote one again
        restore_replaced(folder)
    found = checkpoints(run)
    if not found:
        raise CheckpointError(f"--resume {run}: no checkpoint in it; start the run anew without --resume")
    return found[-1]


def changed_fields(manifest: Manifest, config: RunConfig) -> list[str]:
    """Return `section.field (saved -> now)` for every field that decides what is computed and has changed."""
    changed = []
    defaults = RunConfig().to_dict()
    for section, values in config.to_dict().items():
        saved = manifest.config.get(section, {})
        for name, now in values.items():
            before = saved.get(name, defaults[section][name])  # what older releases did not know, they did not do
            if section not in FREE_SECTIONS and json.dumps(before) != json.dumps(now):
                changed.append(f"{name} ({before} -> {now})")
    return changed


def other_gpus(manifest: Manifest, config: RunConfig) -> str:
    """Return what there is to know of a run that goes on with other GPUs, or shares more or less; empty where not."""
    now, saved = config.device, manifest.config.get("device", {})
    before = dataclasses.replace(now, num_gpus=saved.get("num_gpus", 1), sharding=saved.get("sharding", "auto"))
    pairs = {"--num-gpus": (before.num_gpus, now.num_gpus), "--sharding": (before.engine, now.engine)}
    changed = [f"{flag} {new} instead of {old}" for flag, (old, new) in pairs.items() if new != old]
    return f"goes on with {', '.join(changed)}: the same up to rounding, but for dropout" if changed else ""


def check_same_optimizer(manifest: Manifest, config: RunConfig, folder: Path) -> None:
    """Raise CheckpointError where the checkpoint holds the states of another optimizer."""
    saved = manifest.config.get("train", {}).get("optimizer")
    if saved != config.train.optimizer:
        raise CheckpointError(
            f"--resume {folder}: it holds the states of {saved}, of no use to {config.train.optimizer}; "
            f"give --optimizer {saved}"
        )


def check_same_run(manifest: Manifest, config: RunConfig, data_digest: str, folder: Path) -> None:
    """Raise CheckpointError where the configuration or the corpus is another; its message names the fields."""
    if changed := changed_fields(manifest, config):
        raise CheckpointError(
            f"--resume {folder}: the configuration has changed: {', '.join(changed)}; "
            "give the values it began with, or --allow-changes"
        )
    if manifest.data_digest != data_digest:
        raise CheckpointError(
            f"--resume {folder}: the corpus is not the one it began with; give that one, or --allow-changes"
        )
