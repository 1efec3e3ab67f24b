"""Loading as most programs do: `from_pretrained`, which reserves what the model will take and then places its weights.

Its peak and what it leaves in the allocator's cache are the library's own, and on a GPU not the same twice, as threads
place the weights there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.hooks import remove_hook_from_module
from transformers import PreTrainedConfig

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.devices.base import Device
from memory_harness.harness.devices.programs import run_program
from memory_harness.harness.strategies.architecture import attention_of, auto_class
from memory_harness.harness.strategies.modeling import Layout


def load_by_transformers(
    config: PreTrainedConfig,
    device: Device,
    layout: Layout,
    checkpoint: Path | None,
    attention: str,
    *,
    over_host: bool,
) -> Any:
    """Return the model on the device.

    Args:
        checkpoint: folder with its weights; None where none are wanted, as in a simulation.
        over_host: load it into host memory, and move it to the device then.

    Raises:
        ConfigError: there are no weights, and the device needs some.
    """
    if checkpoint is None and device.computes:
        raise ConfigError("--loader transformers: loads a checkpoint, which --model does not name; leave it out")
    model_class = auto_class(config)
    options: dict[str, Any] = {"quantization_config": layout.options} if layout.is_quantised else {}

    def load(name: str) -> Any:
        place = {} if over_host else {"device_map": {"": name}}
        model = model_class.from_pretrained(
            folder,
            config=config,
            dtype=layout.dtype,
            attn_implementation=attention_of(model_class, config, attention),
            local_files_only=True,
            trust_remote_code=False,
            **place,
            **options,
        )
        return model.to(name) if over_host else model

    with _folder(config, checkpoint) as folder:
        model = run_program(device, load)
    # they move a batch to the device, where it is already
    remove_hook_from_module(model, recurse=True)
    return model


@contextmanager
def _folder(config: PreTrainedConfig, checkpoint: Path | None) -> Iterator[Path]:
    """Yield a folder that holds at least the configuration."""
    if checkpoint is not None:
        yield checkpoint
        return
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        yield Path(folder)
