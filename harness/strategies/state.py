"""What training changes, saved and restored: adapter, optimizer, loss scaler.

The base model is frozen and never saved: its copy would double the memory of the save, and it is on disk already.
"""

import io
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from memory_harness.harness.devices.base import Device
from memory_harness.harness.devices.parallel import local_part
from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.strategies.shards import give, sharded_like

STATE_FILE = "training_state.pt"


def trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that have gradients by their names."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def trainable_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return the values of the parameters that have gradients by their names."""
    return {name: p.detach() for name, p in trainable_parameters(model).items()}


def training_state(model: Any, optimizer: Any, scaler: Any) -> dict[str, Any]:
    """Return the training state as it is."""
    return {**_adapter_and_optimizer(model, optimizer), "scaler": scaler.state_dict()}


def _adapter_and_optimizer(model: Any, optimizer: Any) -> dict[str, Any]:
    # not the model's state_dict, nor peft's: both read every 4-bit layer's constants back from the device
    return {"adapter": trainable_tensors(model), "optimizer": optimizer.state_dict(), "scaler": {}}


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write the training state into `folder`. Raises OSError: it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(state, folder / STATE_FILE)


def restore(folder: Path, model: Any, optimizer: Any, scaler: Any, device: Device) -> None:
    """Load the training state through host memory, so that the device never holds it twice.

    Raises:
        CheckpointError: it does not belong to this model.
        OSError: the folder has no training state.
    """
    with device.on_host():
        if device.computes:
            state = read_tensors(folder / STATE_FILE)
        else:  # the same tensors on the host, without values
            blank = partial(torch.zeros_like, device="cpu")
            state = tree_map_only(torch.Tensor, blank, _adapter_and_optimizer(model, optimizer))
    trainable = trainable_parameters(model)
    _check_shapes(folder, trainable, state["adapter"])
    with torch.no_grad():
        for name, parameter in trainable.items():
            give(parameter, state["adapter"][name])
    try:
        load_optimizer(optimizer, state["optimizer"])
    except ValueError:  # where the groups of weights are others
        raise CheckpointError(
            f"--resume {folder}: its optimizer has other groups of weights; give the --weight-decay it began with"
        ) from None
    if state["scaler"]:
        scaler.load_state_dict(state["scaler"])


def load_optimizer(optimizer: Any, saved: dict[str, Any]) -> None:
    """Load the optimizer's state, each tensor of the type that it was saved in.

    PyTorch gives states the type of their weights, and so rounds what transformers' Adafactor keeps in float32 of
    weights in 16 bits. Source: torch/optim/optimizer.py, `_process_value_according_to_param_policy`.
    """
    parameters: list[torch.nn.Parameter] = []
    for group in optimizer.param_groups:
        parameters += group["params"]
    optimizer.load_state_dict(_sharded_states(saved, parameters))
    for index, values in saved["state"].items():
        loaded = optimizer.state[parameters[index]]
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


def _sharded_states(saved: dict[str, Any], parameters: list[torch.nn.Parameter]) -> dict[str, Any]:
    """Return an optimizer's state with what belongs to sharded weights sharded as they are."""
    states = {}
    for index, values in saved["state"].items():
        share = partial(sharded_like, parameters[index])
        states[index] = tree_map_only(torch.Tensor, share, values)
    return {**saved, "state": states}


def _check_shapes(folder: Path, trainable: dict[str, torch.nn.Parameter], saved: dict[str, torch.Tensor]) -> None:
    shapes = {name: p.shape for name, p in trainable.items()}
    if shapes != {name: t.shape for name, t in saved.items()}:
        raise CheckpointError(
            f"--resume {folder}: its adapter does not fit the model; give the --lora-rank and --target-modules "
            "it began with"
        )


def write_tensors(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values to a file. Raises OSError where that is not possible."""
    # by way of host memory: on a full disk torch.save raises a RuntimeError that says nothing of disks
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(buffer.getbuffer())


def read_tensors(path: Path) -> dict[str, Any]:
    """Return what `write_tensors` wrote, in host memory. Raises CheckpointError: it is something else."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged archive makes it stumble over; its advice is to trust the file
        raise CheckpointError(
            f"--resume {path.parent}: {path.name} holds something else than tensors and plain values "
            f"({type(error).__name__}); give another checkpoint"
        ) from None


def copy_to_host(model: Any, optimizer: Any, scaler: Any, device: Device) -> dict[str, Any]:
    """Return a copy of the training state in host memory, for `undo_to`."""
    with device.on_host():
        return {
            "adapter": {name: _copy_to_host(p) for name, p in trainable_parameters(model).items()},
            "optimizer": {p: tree_map_only(torch.Tensor, _copy_to_host, state) for p, state in optimizer.state.items()},
            "scaler": scaler.state_dict(),
        }


def undo_to(copied: dict[str, Any], model: Any, optimizer: Any, scaler: Any) -> None:
    """Undo whatever part of an optimizer step was done since `copy_to_host`; allocates nothing on the device."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in copied["adapter"]:
                local_part(parameter).copy_(copied["adapter"][name])
        for parameter in list(optimizer.state):
            if parameter in copied["optimizer"]:
                _undo_optimizer(optimizer.state[parameter], copied["optimizer"][parameter])
            else:
                del optimizer.state[parameter]
    scaler.load_state_dict(copied["scaler"])


def _undo_optimizer(state: dict[str, Any], copied: dict[str, Any]) -> None:
    for key, value in copied.items():
        current = state[key]
        if isinstance(current, torch.Tensor):
            local_part(current).copy_(value)
        else:
            state[key] = value


def _copy_to_host(tensor: torch.Tensor) -> torch.Tensor:
    return local_part(tensor).detach().to("cpu", copy=True)
