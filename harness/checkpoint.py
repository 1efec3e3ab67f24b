"""Saving and restoring what training changes: adapter, optimizer, loss scaler.

The base model is frozen and never saved: its copy would double the memory of the save, and it is on disk already.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import peft
import torch

from harness.devices.base import Device

STATE_FILE = "training_state.pt"


def save(folder: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> None:
    """Write the training state into `folder`: to a temporary name, synced, then renamed, so never half.

    Raises:
        OSError: the folder cannot be written.
    """
    # only the adapter's weights are asked for: a whole state_dict would unpack every 4-bit layer's constants
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {
        "adapter": peft.get_peft_model_state_dict(model, state_dict=trainable),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if device.computes else {},
    }
    if not device.computes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (STATE_FILE + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE_FILE)


def restore(folder: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> None:
    """Load the training state through host memory, so that the device never holds it twice.

    Raises:
        OSError: the folder has no training state.
    """
    with device.on_host():
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    peft.set_peft_model_state_dict(model, state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
