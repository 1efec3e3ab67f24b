"""Loading and saving in a run that has no weights: `config.json` is all that a model needs, and nothing is written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch

from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.places import CPU, META
from memory_harness.harness.simulate.facade.values import users_place

Function = Callable[..., Any]


@contextmanager
def files_without_weights(tracer: FacadeTracer) -> Iterator[None]:
    """Within, `from_pretrained` needs a configuration only, and files of weights are not written."""
    with ExitStack() as stack:
        for owner, name, function in _replacements(tracer):
            stack.enter_context(patch.object(owner, name, function))
        # one thread: the tracer sees no other
        stack.enter_context(patch.dict("os.environ", HF_DEACTIVATE_ASYNC_LOAD="1"))
        _forget_what_was_found()
        stack.callback(_forget_what_was_found)
        yield


def _forget_what_was_found() -> None:
    """Let transformers look again for a GPU and for what goes with it: it remembers what it has found."""
    from transformers.utils import import_utils

    for found in list(vars(import_utils).values()):
        forget = getattr(found, "cache_clear", None)
        if callable(forget):
            forget()


def _replacements(tracer: FacadeTracer) -> list[tuple[Any, str, Any]]:
    import safetensors.torch
    from transformers import modeling_utils
    from transformers.modeling_utils import PreTrainedModel

    def no_files(*_: Any, **__: Any) -> tuple[list[str], None]:
        return [""], None

    return [
        (modeling_utils, "_get_resolved_checkpoint_files", no_files),
        (modeling_utils, "_get_dtype", _dtype_of_config(modeling_utils._get_dtype)),
        (PreTrainedModel, "_load_pretrained_model", _with_stand_in_weights(tracer)),
        # what `torch.save` calls: it is itself observed
        (torch.serialization, "_open_zipfile_writer", nullcontext),
        (torch.serialization, "_save", _not_written(tracer, "torch.save")),
        # what `save_file` calls: many have imported it by its name
        (safetensors.torch, "serialize_file", _not_written(tracer, "safetensors")),
        *((safetensors.torch, name, _nothing_flat) for name in _flatteners(safetensors.torch)),
        (torch, "load", _load(tracer, torch.load)),
    ]


def _dtype_of_config(original: Function) -> Function:
    @functools.wraps(original)
    def get_dtype(dtype: Any, checkpoint_files: Any, config: Any, *rest: Any, **kwargs: Any) -> Any:
        """Take float32, in which weights are saved whose configuration names no type."""
        if dtype == "auto" and getattr(config, "dtype", None) is None:
            dtype = torch.float32
        return original(dtype, checkpoint_files, config, *rest, **kwargs)

    return get_dtype


def _with_stand_in_weights(tracer: FacadeTracer) -> Any:
    from transformers.modeling_utils import PreTrainedModel

    original = PreTrainedModel._load_pretrained_model

    def load(model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *rest: Any, **kwargs: Any) -> Any:
        state_dict = state_dict or _stand_in_state(tracer, model)
        return original(model, state_dict, None, load_config, *rest, **kwargs)

    return staticmethod(load)


def _stand_in_state(tracer: FacadeTracer, model: Any) -> dict[str, torch.Tensor]:
    """Return weights on the host as the model's checkpoint holds them: tied ones once, in the configuration's type."""
    from transformers.core_model_loading import revert_weight_conversion

    tied = set(model.all_tied_weights_keys)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    saved = getattr(model.config, "dtype", None)
    made = {}
    for name, tensor in revert_weight_conversion(model, state).items():
        dtype = saved if saved is not None and tensor.is_floating_point() else tensor.dtype
        made[name] = tracer.place_on_host(torch.empty(tensor.shape, dtype=dtype, device=META))
    return made


def _flatteners(module: Any) -> list[str]:
    """Return the names under which safetensors' versions hold what takes tensors apart for a file."""
    return [name for name in ("_flatten", "_flatten_as_ptr") if hasattr(module, name)]


def _nothing_flat(*_: Any) -> dict[str, Any]:
    return {}


def _not_written(tracer: FacadeTracer, what: str) -> Function:
    def save(*_: Any, **__: Any) -> None:
        tracer.stand_ins.add(f"a file of {what}, which is not written", users_place)

    return save


def _load(tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        """Read on the host, and move to the card what the caller wants there."""
        device = tracer.device_named(map_location) if isinstance(map_location, (str, torch.device, int)) else None
        loaded = original(file, map_location=CPU, **kwargs)
        if device is None or device.type != "cuda":
            return loaded
        return _moved(loaded, device)

    return load


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return type(value)((name, _moved(member, device)) for name, member in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(member, device) for member in value)
    return value
