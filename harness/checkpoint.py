"""Saving and restoring what training changes: adapter, optimizer, loss scaler.

The base model is frozen and never saved: its copy would double the memory of the save, and it is on disk already.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from harness.devices.base import Device

STATE_FILE = "training_state.pt"


def save(folder: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> None:
    """Write the training state into `folder`: to a temporary name, synced, then renamed, so never half.

    Raises:
        OSError: the folder cannot be written.
    """
    state = _training_state(model, optimizer)
    if not device.computes:
        return
    state["scaler"] = scaler.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (STATE_FILE + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE_FILE)


def keep_newest(folder: Path, number: int) -> None:
    """Remove all checkpoints in `folder` but the newest."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    for outdated in checkpoints[:-number]:
        shutil.rmtree(outdated)


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
        OSError: the folder has no training state.
    """
    with device.on_host():
        if device.computes:
            state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        else:  # the same tensors on the host, without values
            state = tree_map(_blank_on_host, _training_state(model, optimizer))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state["adapter"]:
                parameter.copy_(state["adapter"][name])
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])


def _blank_on_host(value: Any) -> Any:
    return torch.zeros_like(value, device="cpu") if isinstance(value, torch.Tensor) else value
