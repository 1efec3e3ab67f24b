"""A run: what is trained, where, how and on what; opened from a configuration."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from memory_harness.configs.cards import Card, budget_of, card_of
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.devices.cuda import CudaDevice
from memory_harness.harness.devices.parallel import Group
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.strategies.base import Strategy, Traceable
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.registry import STRATEGIES

StrategyT = TypeVar("StrategyT", bound=Strategy, covariant=True)


@dataclass(frozen=True)
class Run(Generic[StrategyT]):
    """What belongs to one run, from its first record to its last."""

    config: RunConfig
    device: ObservableDevice
    strategy: StrategyT
    """on the device"""
    data: Prepared


def open_run(config: RunConfig, data: Prepared) -> Run[Strategy]:
    """Return the run that the configuration asks for.

    Raises:
        DeviceError: its device is not to be had.
    """
    device = open_device(config)
    return Run(config, device, make_strategy(config, device), data)


def open_device(config: RunConfig, group: Group | None = None) -> ObservableDevice:
    """Return the device that the configuration asks for.

    Args:
        group: the GPUs of the run; without it, one of those configured takes its share and the others are not there.

    Raises:
        DeviceError: it is not to be had.
    """
    if group is not None:
        group = replace(group, shares_layers=_shares_layers(config))
    card = card_of(config.device)
    wanted = config.device.device
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        return CudaDevice(
            card,
            budget_of(config.device),
            attention=config.model.sdpa_kernel,
            expandable_segments=config.device.expandable_segments,
            group=group or share_of(config),
            num_cards=_num_cards(config),
        )
    return simulate_card(config, card, group)


def _num_cards(config: RunConfig) -> int:
    """Return how many GPUs one process drives."""
    return config.device.num_gpus if config.device.engine == "split" else 1


def share_of(config: RunConfig) -> Group:
    """Return the first of the configured GPUs, which has the longest batches and never fewer than others."""
    return Group(0, config.device.data_parallel_size, shares_layers=_shares_layers(config))


def _shares_layers(config: RunConfig) -> bool:
    return config.device.engine == "fsdp"


def simulate_card(config: RunConfig, card: Card, group: Group | None = None) -> SimulatedDevice:
    """Return a simulation of the card, with the configuration's settings."""
    return SimulatedDevice(
        card,
        budget_of(config.device),
        computes=config.device.tensors == "real",
        expandable_segments=config.device.expandable_segments,
        attention=config.model.sdpa_kernel,
        group=group or share_of(config),
        num_cards=_num_cards(config),
    )


def make_strategy(config: RunConfig, device: ObservableDevice) -> Strategy:
    """Return the strategy; on a device that computes nothing, one that replays what it has once recorded."""
    strategy = STRATEGIES[config.model.strategy](config, device)
    if isinstance(device, SimulatedDevice) and not device.computes:
        assert isinstance(strategy, Traceable), "only strategies that can be simulated get a simulated device"
        return CompiledStrategy(strategy, device)
    return strategy
