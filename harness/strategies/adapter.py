"""The adapter in peft's own format: `adapter_model.safetensors` and `adapter_config.json`; written and read."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.inputs import read_input
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.files import partial_folder, replace_folder, sync
from memory_harness.harness.log.records import EvalRecord, record_from_json, record_to_dict
from memory_harness.harness.strategies.shards import give
from memory_harness.harness.strategies.state import trainable_parameters
from memory_harness.harness.strategies.weights import open_weights

EVALUATION_FILE = "evaluation.json"
"""beside an adapter: the evaluation that it was kept for"""


def export_adapter(folder: Path, model: Any, adapter: dict[str, torch.Tensor], base_model: str, device: Device) -> None:
    """Write the adapter so that `peft.PeftModel.from_pretrained(base, folder)` loads it: beside `folder`, then renamed.

    Args:
        folder: made, or replaced as a whole.
        model: with a peft adapter.
        adapter: its values, in host memory.
        base_model: what the configuration names as its base.
        device: of the model; nothing is written where it computes nothing.

    Raises:
        OSError: the folder cannot be written.
    """
    if not device.computes:
        return
    model.peft_config["default"].base_model_name_or_path = base_model
    _export(folder, model, adapter, device, save_embedding_layers=False)


def export_model(folder: Path, model: Any, weights: dict[str, torch.Tensor], device: Device) -> None:
    """Write a model that was trained whole so that transformers loads it: beside `folder`, then renamed.

    Raises:
        OSError: the folder cannot be written.
    """
    if device.computes:
        _export(folder, model, weights, device)


def _export(folder: Path, model: Any, state: dict[str, torch.Tensor], device: Device, **options: Any) -> None:
    with partial_folder(folder) as partial:
        written = partial / "adapter"
        with device.on_host():
            # given its state, peft does not ask the model for all of it: that reads every 4-bit layer's constants back
            try:
                model.save_pretrained(str(written), state_dict=state, **options)
            except SafetensorError as error:  # what it makes of a full disk
                raise OSError(str(error)) from None
        for file in written.iterdir():
            sync(file)
        replace_folder(folder, written)


def write_evaluation(folder: Path, record: EvalRecord) -> None:
    """Write down beside an adapter which evaluation it is of. Raises OSError where that cannot be written."""
    (folder / EVALUATION_FILE).write_text(json.dumps(record_to_dict(record)) + "\n", encoding="utf-8")
    sync(folder / EVALUATION_FILE)


def evaluation_of(folder: Path) -> EvalRecord | None:
    """Return the evaluation that the adapter in the folder was kept for; None where that is not known."""
    try:
        record = record_from_json(read_input(folder / EVALUATION_FILE))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, EvalRecord) else None


def import_model(folder: Path, model: Any, device: Device) -> None:
    """Give a model that is trained whole the weights that `folder` holds, one at a time through host memory.

    Raises:
        ConfigError: it holds no weights, or others.
    """
    parameters = trainable_parameters(model)
    with open_weights(folder) as weights, torch.no_grad():
        weights.check({name: tuple(parameter.shape) for name, parameter in parameters.items()})
        for name, parameter in parameters.items():
            with device.on_host():
                value = weights.read(name, parameter.dtype)
            give(parameter, value)


def import_adapter(folder: Path, model: Any, device: Device) -> None:
    """Give the model's adapter the values that `folder` holds, one parameter at a time through host memory.

    Raises:
        ConfigError: it holds no adapter, or one of other layers or another rank.
    """
    from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
    from safetensors.torch import load_file

    # peft leaves the adapter's name out of the names that it writes; given a state, it asks the model for none
    trainable = trainable_parameters(model)
    parameters = get_peft_model_state_dict(model, state_dict=dict(trainable), save_embedding_layers=False)
    try:
        with device.on_host():
            saved = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"no adapter can be read in {folder} ({error})") from None
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if shapes != {name: value.shape for name, value in saved.items()}:
        raise ConfigError(
            f"the adapter in {folder} is of other layers or another rank than --target-modules and --lora-rank say"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            give(parameter, saved[name])
