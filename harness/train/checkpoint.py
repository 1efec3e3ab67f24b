"""Checkpoints of a training run: folders with the training state, the random states and the place in the data.

A checkpoint is written under another name, synced, and renamed once it is whole.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.files import partial_folder, replace_folder, sync
from memory_harness.harness.log.manifest import (
    MANIFEST_FILE,
    FileSum,
    Manifest,
    Position,
    checkpoints,
    manifest_text,
    read_manifest,
    sum_of,
)
from memory_harness.harness.strategies.state import read_tensors, write_tensors
from memory_harness.harness.train.rng import random_states, restore_random_states

RANDOM_FILE = "random_states.pt"
PEER_RANDOM_FILE = "random_states.rank{rank}.pt"
"""of each of several GPUs but the first"""


def write_checkpoint(run_folder: Path, save: Callable[[Path], None], manifest: Manifest) -> Path:
    """Write `checkpoint-STEP` into the run's folder, whole or not at all; return it.

    Args:
        save: writes the training state into the folder that it is given.
        manifest: of the checkpoint, without files.

    Raises:
        OSError: the folder cannot be written; what was there before stays.
    """
    folder = run_folder / f"checkpoint-{manifest.position.step}"
    with partial_folder(folder) as unfinished:
        save(unfinished)
        write_tensors(random_states(), unfinished / RANDOM_FILE)
        files = {path.name: _seal(path) for path in sorted(unfinished.iterdir())}
        (unfinished / MANIFEST_FILE).write_text(manifest_text(replace(manifest, files=files)), encoding="utf-8")
        sync(unfinished / MANIFEST_FILE)
        sync(unfinished)
        replace_folder(folder, unfinished)
    return folder


def _seal(path: Path) -> FileSum:
    """Sync a file and return what the manifest says of it."""
    sync(path)
    return sum_of(path)


def restore_checkpoint(folder: Path, restore: Callable[[Path], None], rank: int = 0) -> Position:
    """Restore the training state and the random states; return where the run was.

    Args:
        rank: which of the run's GPUs this is; one that was not there keeps the random states that it has.

    Raises:
        CheckpointError: it is not whole, or holds something else than a checkpoint does.
    """
    manifest = read_manifest(folder)
    try:
        restore(folder)
        file = folder / (PEER_RANDOM_FILE.format(rank=rank) if rank else RANDOM_FILE)
        if file.exists() or rank == 0:
            restore_random_states(read_tensors(file))
    except torch.OutOfMemoryError:
        raise
    except _WRONG_CONTENTS as error:
        raise CheckpointError(
            f"--resume {folder}: its files are whole, but hold something else than a checkpoint does "
            f"({type(error).__name__}); give another one"
        ) from error
    return manifest.position


_WRONG_CONTENTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""what loading raises where names, shapes or types are others than were saved"""


def save_peers(folder: Path, states: Iterable[dict[str, Any]]) -> None:
    """Write the random states of the run's other GPUs into a checkpoint's folder."""
    for rank, own in enumerate(states, 1):
        write_tensors(own, folder / PEER_RANDOM_FILE.format(rank=rank))


def keep_newest(run_folder: Path, number: int) -> None:
    """Remove all checkpoints in the run's folder but the newest."""
    for outdated in checkpoints(run_folder)[:-number]:
        shutil.rmtree(outdated)
