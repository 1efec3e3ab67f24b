"""Layers that lie on several GPUs, one after the other: as transformers' `device_map="auto"` places and runs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.hooks import attach_align_device_hook_on_blocks
from transformers.integrations.accelerate import get_balanced_memory, infer_auto_device_map
from transformers.quantizers.auto import AutoHfQuantizer

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.remarks import without_remarks
from memory_harness.harness.strategies.modeling import Layout

HOST = ("cpu", "disk")
"""where layers are put for which no GPU has room"""

Places = dict[str, int]
"""the GPU of each part of a model, by the name of its outermost module that lies on one GPU alone"""


def places_of(model: Any, layout: Layout, room_bytes: Sequence[int]) -> Places:
    """Return on which GPU each part of a model lies that has no weights yet.

    Args:
        room_bytes: what weights may take on each GPU.

    Raises:
        ConfigError: they do not have room for all of it.

    Source: transformers/integrations/accelerate.py, `_get_device_map`.
    """
    quantizer = AutoHfQuantizer.from_config(layout.options) if layout.is_quantised else None
    options: dict[str, Any] = {"no_split_module_classes": model._no_split_modules, "hf_quantizer": quantizer}
    room: dict[int | str, Any] = {**dict(enumerate(room_bytes)), "cpu": 0}
    with without_remarks("accelerate.utils.modeling"):  # on GPUs that are not here
        balanced = get_balanced_memory(model, max_memory=room, **options)
        if quantizer is not None:
            balanced = quantizer.adjust_max_memory(balanced)
        places = dict(infer_auto_device_map(model, max_memory=balanced, **options))
    outside = [name for name, place in places.items() if place in HOST]
    if outside:
        raise ConfigError(
            f"--sharding split: device_map would leave {len(outside)} parts of the model to the host, {outside[0]} the "
            f"first (room for weights on {len(room_bytes)} GPUs); give --num-gpus more, or --sharding fsdp"
        )
    return places


def place_of(places: Places, name: str) -> int:
    """Return the GPU of a module or a weight by its name in the model."""
    while name not in places and name:
        name = name.rpartition(".")[0]
    return places.get(name, 0)


def join_layers(model: torch.nn.Module, places: Places) -> None:
    """Let each module bring what it is called with to its own GPU, and the model its results to the first one's."""
    kept = getattr(model, "_skip_keys_device_placement", None)
    attach_align_device_hook_on_blocks(model, execution_device=places, skip_keys=kept)
