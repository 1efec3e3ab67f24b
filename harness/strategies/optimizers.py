"""Optimizers by name, made as transformers' Trainer makes them: its classes, their options, which weights decay.

Source: transformers/trainer.py, `create_optimizer`; transformers/trainer_optimizer.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import torch

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.optimizers import OWN_DECAY, is_yes, named_values
from memory_harness.configs.schema import RunConfig, TrainConfig
from memory_harness.harness.devices.parallel import local_part
from memory_harness.harness.strategies.state import trainable_parameters

BNB_LEAST = 4096
"""elements from which bitsandbytes keeps 8-bit states. Source: `min_8bit_size` in bitsandbytes/optim/optimizer.py"""


def make_optimizer(config: RunConfig, model: Any) -> Any:
    """Return the optimizer of the model's trainable parameters.

    Raises:
        ConfigError: it does not take them, or one of its options.
    """
    train = config.train
    groups = _groups(train, model)
    _check(train.optimizer, model)
    try:
        kind, options = _OWN[train.optimizer](train) if train.optimizer in _OWN else _of_transformers(train)
        optimizer = kind(groups, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--optimizer {train.optimizer}: {' '.join(str(error).split())}") from error
    if hasattr(optimizer, "mng"):
        _keep_embeddings_whole(optimizer, model)
    return optimizer


def _groups(train: TrainConfig, model: Any) -> list[Any]:
    """Return the trainable parameters, in the Trainer's two groups unless the optimizer has its own decay of all."""
    trainable = trainable_parameters(model)
    if train.optimizer in OWN_DECAY and train.weight_decay is None:
        return list(trainable.values())
    from transformers import Trainer

    names = set(Trainer.get_decay_parameter_names(None, model))
    decaying = [parameter for name, parameter in trainable.items() if name in names]
    others = [parameter for name, parameter in trainable.items() if name not in names]
    decay = train.weight_decay or 0.0
    return [{"params": decaying, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _check(name: str, model: Any) -> None:
    """Raise ConfigError where CUDA has no kernel for the parameters, which no other device would say."""
    if not name.startswith("rmsprop_bnb"):
        return
    # Source: bitsandbytes/backends/cuda/ops.py, `str2optimizer32bit`
    for key, parameter in trainable_parameters(model).items():
        has_32_bits = not name.endswith("8bit") or parameter.numel() < BNB_LEAST
        if parameter.dtype is torch.bfloat16 and has_32_bits:
            raise ConfigError(
                f"--optimizer {name}: has no kernel for the bfloat16 of {key} (allowed with it: float32, float16); "
                "use rmsprop, or train in another type"
            )


def _of_transformers(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """Return the class and the options that the Trainer takes."""
    from transformers import Trainer
    from transformers.training_args import OptimizerNames

    arguments = SimpleNamespace(
        optim=OptimizerNames(train.optimizer),
        optim_args=train.optim_args,
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay or 0.0,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
    )
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    if train.optimizer.startswith("rmsprop_bnb"):  # whose arguments the Trainer leaves as texts
        options |= {key: float(value) for key, value in named_values(train.optim_args).items()}
    if issubclass(kind, _FOREACH) and not options.get("fused"):
        options["foreach"] = True  # what CUDA takes by default; a CPU tensor would silently take the other path
    return kind, options


_FOREACH = (torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop)
"""what has one kernel for many tensors"""


def _adamw(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    return torch.optim.AdamW, {**_adam_options(train), "foreach": True}


def _adamw_8bit(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit, _adam_options(train)


def _paged_adamw_8bit(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    from bitsandbytes.optim import PagedAdamW8bit

    return PagedAdamW8bit, _adam_options(train)


def _adam_options(train: TrainConfig) -> dict[str, Any]:
    return {"lr": train.learning_rate, "betas": (train.adam_beta1, train.adam_beta2), "eps": train.adam_epsilon}


def _muon(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """PyTorch's, which takes matrices alone and which transformers has no name for."""
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(f"--optimizer muon: PyTorch {torch.__version__} has none; update it")
    options: dict[str, Any] = {"lr": train.learning_rate}
    for key, text in named_values(train.optim_args).items():
        options[key] = _MUON_VALUES[key](text)
    return torch.optim.Muon, options


_MUON_VALUES: dict[str, Any] = {
    "momentum": float, "nesterov": is_yes, "ns_steps": int, "eps": float, "adjust_lr_fn": str,
}  # fmt: skip
_OWN: dict[str, Any] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "paged_adamw_8bit": _paged_adamw_8bit,
    "muon": _muon,
}
"""what is not made as the Trainer makes it"""


def _keep_embeddings_whole(optimizer: Any, model: Any) -> None:
    """Let bitsandbytes keep 32-bit states of embeddings, as the Trainer does where it keeps 8 bits of the rest.

    Its manager, which has a list of such modules, is one for the process: this optimizer gets one of its own, so that
    nothing outlives it.
    """
    if optimizer.args.optim_bits != 8:
        return
    optimizer.mng = object.__new__(type(optimizer.mng))
    optimizer.mng.initialize()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.weight.requires_grad:
            optimizer.mng.register_module_override(module, "weight", {"optim_bits": 32})


def state_tensors(
    optimizer: Any, parameters: Iterable[tuple[str, torch.nn.Parameter]]
) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Yield what an optimizer keeps on the device, under the names of the parameters that it is for."""
    for name, table in getattr(optimizer, "name2qmap", {}).items():  # bitsandbytes', made with the optimizer
        yield ("optimizer_state", "table", name), table
    for name, parameter in parameters:
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                yield ("optimizer_state", name, key), local_part(value)
