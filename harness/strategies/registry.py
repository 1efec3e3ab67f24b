"""All strategies, by the names that `--strategy` takes."""

from collections.abc import Callable

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.devices.base import Device
from memory_harness.harness.strategies.base import TrainableStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.unsloth import UnslothStrategy

STRATEGIES: dict[str, Callable[[RunConfig, Device], TrainableStrategy]] = {
    "qlora": QLoraStrategy,
    "unsloth": UnslothStrategy,
}
