"""A checkpoint with random weights in the Hub's format, for libraries that load nothing but checkpoints."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from memory_harness.configs.models import ModelShape
from memory_harness.configs.units import format_bytes
from memory_harness.harness.devices.base import Device
from memory_harness.harness.log.errors import DeviceError
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.strategies.modeling import random_weight
from memory_harness.harness.strategies.weights import INDEX


def write_random_checkpoint(shape: ModelShape, folder: Path, dtype: torch.dtype, device: Device) -> None:
    """Write config.json, weights made on the device layer by layer, and a tokenizer that names every id.

    Raises:
        DeviceError: the weights do not fit the disk.
    """
    config = transformers_config(shape)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    parameters = dict(model.named_parameters())  # a tied head is listed once
    needed = sum(p.numel() * p.element_size() for p in parameters.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DeviceError(
            f"--model {shape.name}: its random weights need {format_bytes(needed)} on disk, {folder.parent} has "
            f"{format_bytes(free)}; set TMPDIR to a larger disk"
        )
    config.architectures, config.dtype = [type(model).__name__], dtype
    config.bos_token_id, config.eos_token_id = shape.bos_token_id, list(shape.eos_token_ids)
    config.pad_token_id = shape.pad_token_id
    config.save_pretrained(folder)
    _write_weights(parameters, folder, dtype, device)
    naming_tokenizer(shape).save_pretrained(folder)


def _write_weights(parameters: dict[str, Any], folder: Path, dtype: torch.dtype, device: Device) -> None:
    where: dict[str, str] = {}
    for number, names in enumerate(_groups(list(parameters))):
        file = f"model-{number:05}.safetensors"
        tensors = {name: random_weight(parameters[name].shape, name, device, dtype).cpu() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    total = sum(p.numel() * p.element_size() for p in parameters.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _groups(names: list[str]) -> Iterator[list[str]]:
    """Yield the parameters of each layer, then each other one: no more than a layer waits to be written."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.partition(".layers.")[2].partition(".")[0] or name, []).append(name)
    yield from layers.values()


def naming_tokenizer(shape: ModelShape) -> PreTrainedTokenizerFast:
    """Return a tokenizer that has a word for every id of the model and knows its special ids, and does nothing else."""
    bos, eos, pad = shape.bos_token_id, shape.eos_token_ids[0], shape.pad_token_id
    words = [f"<{i}>" for i in range(shape.vocab_size)]
    words[bos], words[eos] = "<|bos|>", "<|eos|>"
    words[pad] = "<|pad|>"
    unknown = words[min(set(range(4)) - {bos, eos, pad})]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model),
        unk_token=unknown,
        bos_token=words[bos],
        eos_token=words[eos],
        pad_token=words[pad],
    )
