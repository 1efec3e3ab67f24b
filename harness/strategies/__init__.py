"""Ways to load, adapt and train the model. Register one in `STRATEGIES`."""

from __future__ import annotations

from collections.abc import Callable

from configs.schema import RunConfig
from harness.devices.base import Device
from harness.strategies.base import TrainableStrategy
from harness.strategies.qlora import QLoraStrategy
from harness.strategies.unsloth import UnslothStrategy

STRATEGIES: dict[str, Callable[[RunConfig, Device], TrainableStrategy]] = {
    "qlora": QLoraStrategy,
    "unsloth": UnslothStrategy,
}
