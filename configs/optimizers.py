"""Optimizers by the names that `--optimizer` takes: what each keeps of a weight, what `--optim-args` may say of it.

The names are those of transformers' `OptimizerNames`, plus `adamw`, which is PyTorch's with its own defaults, and
PyTorch's `muon`. What needs a package that is not used here is named too, so that it can be refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OptimizerKind:
    """What is known of an optimizer without making it."""

    state_bytes: int
    """kept of a float32 weight in a large matrix; rows, blocks and small tensors have more"""
    arguments: tuple[str, ...] = ()
    """what transformers reads of `--optim-args`"""
    in_8_bits: str = ""
    """the same with states in 8 bits; empty where there is none, or where it takes no less of the card"""
    paged: str = ""
    """the same with states of 8 bits in pages that may move to the host; empty where there is none, or it is paged"""


_MIXING = ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3")
_BNB_RMSPROP = ("alpha", "momentum", "eps")

OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "adamw": OptimizerKind(8, in_8_bits="adamw_8bit", paged="paged_adamw_8bit"),
    "adamw_torch": OptimizerKind(8, in_8_bits="adamw_bnb_8bit", paged="paged_adamw_8bit"),
    "adamw_torch_fused": OptimizerKind(8, in_8_bits="adamw_bnb_8bit", paged="paged_adamw_8bit"),
    "adamw_8bit": OptimizerKind(2, paged="paged_adamw_8bit"),
    "adamw_bnb_8bit": OptimizerKind(2, paged="paged_adamw_8bit"),
    "paged_adamw_32bit": OptimizerKind(8),
    "paged_adamw_8bit": OptimizerKind(2),
    "adafactor": OptimizerKind(0),
    "sgd": OptimizerKind(0, ("momentum", "dampening", "nesterov")),
    "adagrad": OptimizerKind(4, ("lr_decay", "eps")),
    "rmsprop": OptimizerKind(4, ("momentum", "alpha", "eps", "centered")),
    "rmsprop_bnb": OptimizerKind(4, _BNB_RMSPROP, in_8_bits="rmsprop_bnb_8bit"),
    "rmsprop_bnb_32bit": OptimizerKind(4, _BNB_RMSPROP, in_8_bits="rmsprop_bnb_8bit"),
    "rmsprop_bnb_8bit": OptimizerKind(1, _BNB_RMSPROP),
    "lion_32bit": OptimizerKind(4, in_8_bits="lion_8bit", paged="paged_lion_8bit"),
    "lion_8bit": OptimizerKind(1, paged="paged_lion_8bit"),
    "paged_lion_32bit": OptimizerKind(4),
    "paged_lion_8bit": OptimizerKind(1),
    "ademamix": OptimizerKind(12, _MIXING, in_8_bits="ademamix_8bit", paged="paged_ademamix_8bit"),
    "ademamix_8bit": OptimizerKind(3, _MIXING, paged="paged_ademamix_8bit"),
    "paged_ademamix_32bit": OptimizerKind(12, _MIXING),
    "paged_ademamix_8bit": OptimizerKind(3, _MIXING),
    "muon": OptimizerKind(4, ("momentum", "nesterov", "ns_steps", "eps", "adjust_lr_fn")),
}

PACKAGES: Mapping[str, str] = {
    "adamw_anyprecision": "torchdistx",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "adamw_torch_npu_fused": "torch_npu",
    "adamw_torch_xla": "torch_xla",
    "adalomo": "lomo_optim",
    "apollo_adamw": "apollo_torch",
    "apollo_adamw_layerwise": "apollo_torch",
    "galore_adafactor": "galore_torch",
    "galore_adafactor_layerwise": "galore_torch",
    "galore_adamw": "galore_torch",
    "galore_adamw_8bit": "galore_torch",
    "galore_adamw_8bit_layerwise": "galore_torch",
    "galore_adamw_layerwise": "galore_torch",
    "grokadamw": "grokadamw",
    "lomo": "lomo_optim",
    "schedule_free_adamw": "schedulefree",
    "schedule_free_radam": "schedulefree",
    "schedule_free_sgd": "schedulefree",
    "stable_adamw": "torch-optimi",
}
"""what transformers knows and this program does not train with: the package of each"""

OWN_DECAY = ("adamw", "adamw_8bit", "paged_adamw_8bit")
"""what decays all weights, as PyTorch and bitsandbytes do by default, unless a weight decay is given"""


_OF_PYTORCH = ("adamw", "adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop", "muon")
"""what keeps states of the weights' own type"""


def named_values(text: str | None) -> dict[str, str]:
    """Return what `key=value,...` says, as texts. Raises ValueError: it is not written so."""
    values: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals or not value:
            raise ValueError(f"{pair.strip()!r} is no KEY=VALUE")
        values[key] = value
    return values


def state_bytes(optimizer: str, optim_args: str | None) -> int:
    """Return what the optimizer keeps of a float32 weight in a large matrix, momentum and the like included."""
    given = named_values(optim_args)
    extra = 0
    if optimizer in ("sgd", "rmsprop") and float(given.get("momentum", 0)) > 0:
        extra += 4
    if optimizer == "rmsprop" and is_yes(given.get("centered", "")):
        extra += 4
    return OPTIMIZERS[optimizer].state_bytes + extra


def resident_state_bytes(optimizer: str, optim_args: str | None, weight_bytes: int) -> int:
    """Return what stays on the card of a weight of so many bytes: PyTorch's states are as wide, pages may all leave."""
    if optimizer.startswith("paged"):
        return 0
    kept = state_bytes(optimizer, optim_args)
    return kept * weight_bytes // 4 if optimizer in _OF_PYTORCH else kept


def is_yes(text: str) -> bool:
    """Return whether a text says so. Source: transformers/trainer_optimizer.py, `nesterov`."""
    return text.lower() in ("true", "1", "yes")
