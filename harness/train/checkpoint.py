"""Saving and restoring what training changes: adapter, optimizer, loss scaler, random states, the place in the data.

The base model is frozen and never saved: its copy would double the memory of the save, and it is on disk already.
A checkpoint is written under another name, synced, and renamed once it is whole.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.files import replace_folder, sync
from memory_harness.harness.log.manifest import (
    MANIFEST_FILE,
    Manifest,
    Position,
    checkpoints,
    file_sha256,
    manifest_text,
    read_manifest,
)
from memory_harness.harness.train.rng import random_states, restore_random_states

STATE_FILE = "training_state.pt"
RANDOM_FILE = "random_states.pt"
PEER_RANDOM_FILE = "random_states.rank{rank}.pt"
"""of each of several GPUs but the first"""


def write_checkpoint(run: Path, save: Callable[[Path], None], about: Manifest) -> Path:
    """Write `checkpoint-STEP` into the run's folder, whole or not at all; return it.

    Args:
        run: the run's folder.
        save: writes the training state into the folder that it is given.
        about: the manifest, without files.

    Raises:
        OSError: the folder cannot be written; what was there before stays.
    """
    folder = run / f"checkpoint-{about.position.step}"
    unfinished = run / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        save(unfinished)
        _dump(random_states(), unfinished / RANDOM_FILE)
        files = {path.name: _seal(path) for path in sorted(unfinished.iterdir())}
        (unfinished / MANIFEST_FILE).write_text(manifest_text(replace(about, files=files)), encoding="utf-8")
        for path in (unfinished / MANIFEST_FILE, unfinished):
            sync(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    replace_folder(folder, unfinished)
    return folder


def _seal(path: Path) -> dict[str, Any]:
    sync(path)
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def restore_checkpoint(folder: Path, restore: Callable[[Path], None], rank: int = 0) -> Position:
    """Restore the training state and the random states; return where the run was.

    Args:
        rank: which of the run's GPUs this is; one that was not there keeps the random states that it has.

    Raises:
        CheckpointError: it is not whole.
    """
    manifest = read_manifest(folder)
    restore(folder)
    file = folder / (PEER_RANDOM_FILE.format(rank=rank) if rank else RANDOM_FILE)
    if file.exists() or rank == 0:
        restore_random_states(_load(file))
    return manifest.position


def save_peers(folder: Path, states: Iterable[dict[str, Any]]) -> None:
    """Write the random states of the run's other GPUs into a checkpoint's folder."""
    for rank, own in enumerate(states, 1):
        _dump(own, folder / PEER_RANDOM_FILE.format(rank=rank))


def keep_newest(run: Path, number: int) -> None:
    """Remove all checkpoints in the run's folder but the newest."""
    for outdated in checkpoints(run)[:-number]:
        shutil.rmtree(outdated)


def save(folder: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> None:
    """Write the training state into `folder`.

    Raises:
        OSError: the folder cannot be written.
    """
    state = _training_state(model, optimizer)
    if not device.computes:
        return
    state["scaler"] = scaler.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    _dump(state, folder / STATE_FILE)


def _training_state(model: Any, optimizer: Any) -> dict[str, Any]:
    # not the model's state_dict, nor peft's: both read every 4-bit layer's constants back from the device
    return {
        "adapter": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
        "scaler": {},
    }


def restore(folder: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> None:
    """Load the training state through host memory, so that the device never holds it twice.

    Raises:
        CheckpointError: it does not belong to this model.
        OSError: the folder has no training state.
    """
    with device.on_host():
        if device.computes:
            state = _load(folder / STATE_FILE)
        else:  # the same tensors on the host, without values
            state = tree_map(_blank_on_host, _training_state(model, optimizer))
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _check_shapes(folder, trainable, state["adapter"])
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state["adapter"][name])
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])


def _check_shapes(folder: Path, trainable: dict[str, Any], saved: dict[str, torch.Tensor]) -> None:
    if {name: p.shape for name, p in trainable.items()} != {name: t.shape for name, t in saved.items()}:
        raise CheckpointError(
            f"--resume {folder}: its adapter does not fit the model; give the --lora-rank and --target-modules "
            "it began with"
        )


def _dump(state: dict[str, Any], path: Path) -> None:
    # by way of host memory: on a full disk torch.save raises a RuntimeError that says nothing of disks
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getbuffer())


def _load(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _blank_on_host(value: Any) -> Any:
    return torch.zeros_like(value, device="cpu") if isinstance(value, torch.Tensor) else value


def host_copy(model: Any, optimizer: Any, scaler: Any, device: Device) -> dict[str, Any]:
    """Return a copy of the training state in host memory, for `put_back`."""
    with device.on_host():
        return {
            "adapter": {name: _copy_to_host(p) for name, p in model.named_parameters() if p.requires_grad},
            "optimizer": {p: tree_map(_copy_to_host, state) for p, state in optimizer.state.items()},
            "scaler": scaler.state_dict(),
        }


def put_back(state: dict[str, Any], model: Any, optimizer: Any, scaler: Any) -> None:
    """Undo whatever part of an optimizer step was done since `host_copy`; allocates nothing on the device."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state["adapter"]:
                parameter.copy_(state["adapter"][name])
        for parameter in list(optimizer.state):
            saved = state["optimizer"].get(parameter)
            if saved is None:
                del optimizer.state[parameter]
                continue
            for key, value in saved.items():
                current = optimizer.state[parameter][key]
                if isinstance(current, torch.Tensor):
                    current.copy_(value)
                else:
                    optimizer.state[parameter][key] = value
    scaler.load_state_dict(state["scaler"])


def _copy_to_host(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
