"""What a fault is, and the few ways in which users' code gets between the loop and the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Example
from memory_harness.harness.data.prepare import Prepared
from memory_harness.harness.strategies.qlora import QLoraStrategy

MISTAKE = "# the mistake"
"""marks the line that a finding has to name"""


def _unchanged_data(data: Prepared) -> Prepared:
    return data


@dataclass(frozen=True)
class Fault:
    """A mistake as people make it, which really produces its cause in a run.

    A run with the fault is `execute(fault.configure(config), ..., fault.prepare(data), ...)` once `fault.install` has
    been called with the strategy, the plain one: a compiled one would replay the run without the mistake.
    """

    name: str
    title: str
    """the mistake in one line"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """fields of the configuration that it changes"""
    prepare: Callable[[Prepared], Prepared] = _unchanged_data
    install: Callable[[QLoraStrategy], AbstractContextManager[object] | None] = nullcontext
    """puts the mistake in; what it returns, if anything, lasts as long as the run"""
    other_cause: str | None = None
    """the cause that it shows, where that is not called as the fault"""
    resumes: bool = False
    """the run starts from a checkpoint of one before it"""
    needs_values: bool = False
    """it reads tensors, so that fake ones will not do"""
    needs_simulation: bool = False
    """it changes the simulated card"""

    @property
    def cause(self) -> str:
        """Return the id that a finding has to carry."""
        return self.other_cause or self.name

    def configure(self, config: RunConfig) -> RunConfig:
        """Return the configuration as the fault changes it."""
        return config.with_fields(**self.settings)


def around(target: Any, method: str, wrapper: Callable[..., Any]) -> None:
    """Let `wrapper(original, *args)` stand in for a method of one object, as a subclass or a callback would."""
    setattr(target, method, partial(wrapper, getattr(target, method)))


def after(target: Any, method: str, action: Callable[[], object]) -> None:
    """Run the action whenever the method has returned."""

    def wrapper(original: Callable[..., Any], *args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        action()
        return result

    around(target, method, wrapper)


def on_output(strategy: QLoraStrategy, training: bool, callback: Callable[[Any], object]) -> None:
    """Hand each output of the model, in training or in evaluation, to the callback."""

    def hook(model: Any, _: Any, output: Any) -> None:
        if model.training is training:
            callback(output)

    after(strategy, "load", lambda: strategy.model.register_forward_hook(hook))


def before_training_batch(strategy: QLoraStrategy, action: Callable[[], object]) -> None:
    """Run the action before each training batch is put on the device."""

    def put(original: Callable[..., None], batch: Any, *, training: bool) -> None:
        if training:
            action()
        original(batch, training=training)

    around(strategy, "put", put)


def with_lengths(lengths: Sequence[int]) -> Callable[[Prepared], Prepared]:
    """Return what cuts or repeats the training samples to these lengths in tokens, in turn."""

    def prepare(data: Prepared) -> Prepared:
        train = [_resized(example, lengths[i % len(lengths)]) for i, example in enumerate(data.train)]
        return replace(data, train=train)

    return prepare


def _resized(example: Example, length: int) -> Example:
    ids = example.input_ids
    if ids is not None:
        ids = (ids * (length // len(ids) + 1))[:length]
    return Example(length, min(example.num_prompt_tokens, length // 2), ids)
