"""Code that asks for the card by its name, as libraries' loaders do, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memory_harness.harness.devices.base import Device
from memory_harness.harness.devices.dry_run import run_on_card_of
from memory_harness.harness.devices.simulated import SimulatedDevice


def run_program(device: Device, program: Callable[[str], Any]) -> Any:
    """Run a program, which takes PyTorch's name of the device; without values, on a card that it finds by itself."""
    if not isinstance(device, SimulatedDevice):
        return program(f"cuda:{torch.cuda.current_device()}")
    if device.computes:
        return program("cpu")
    return run_on_card_of(device, program)
