"""Records a run of transformers' `Trainer`, TRL's trainers included, through the hooks that they offer.

    memory = MemoryCallback("runs/mine", budget="14.4 GiB")
    trainer = Trainer(model, args, train_dataset=..., callbacks=[memory])
    trainer.train()
    memory.report()

The trainer tells where steps begin and end; hooks of the model tell the forward pass from the rest:

    DATA        from the begin of a step, or of a micro-batch, to the model's forward pass
    FORWARD     the model's forward pass, in training mode
    BACKWARD    from there to the end of the micro-batch: loss, backward pass, clipping
    OPTIMIZER   update, schedule, clearing the gradients
    EVAL        a batch of an evaluation or a prediction, with what is gathered of it
    CHECKPOINT  from the end of the step, or of its evaluation, until the checkpoint is written
"""

from __future__ import annotations

import atexit
import gc
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from memory_harness.harness.log.records import BatchShape, EvalRecord, Phase, RetryRecord
from memory_harness.harness.observe.caught_failures import CaughtFailures
from memory_harness.harness.observe.facts import field_of, forward_facts, tensors_in
from memory_harness.harness.observe.own_loop import FilePath, Recorder, batch_shape_on_host
from memory_harness.harness.observe.recorder import BegunPhase
from memory_harness.harness.observe.tracking import Tracking

_OPEN: weakref.WeakSet[MemoryCallback] = weakref.WeakSet()  # those that are recording


@dataclass
class _Step:
    """The optimizer step that is running."""

    begin: float
    shapes: list[BatchShape] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    learning_rate: float = 0.0
    is_share: bool = False  # each loss is a share of the step's, so that they are added up and not averaged

    def loss(self, read: Callable[[torch.Tensor], float | None]) -> float | None:
        """Return the loss of the step; waits for the device."""
        values = [value for value in map(read, self.losses) if value is not None]
        if not values:
            return None
        return sum(values) if self.is_share else sum(values) / len(values)


class MemoryCallback(TrainerCallback):
    """Records one log each time that the trainer trains, or evaluates or predicts on its own.

    A trainer tells its callbacks nothing when it fails: the log of a failure is complete all the same, and closed by
    `report`, by `close`, by the next training, by a new callback or when Python ends. Without a GPU, what is made until
    then counts as made on the card that it failed on.

    Its arguments are those of `Recorder.open`, and in `log_to` the trackers that losses and memory are sent to.
    """

    def __init__(
        self,
        path: FilePath,
        *,
        device: str = "auto",
        gpu: str | None = None,
        budget: str | int | None = None,
        log_to: Sequence[str] = (),
    ) -> None:
        self._tracking = Tracking(log_to)
        for other in tuple(_OPEN):
            other.close()
        self._open = lambda: Recorder.open(path, device=device, gpu=gpu, budget=budget)
        self._stack = ExitStack()
        self._recorder: Recorder | None = None
        self._last: Recorder | None = None  # the one that `report` is about
        self._phase: BegunPhase | None = None
        self._step: _Step | None = None
        self._is_training = False
        self._num_eval_batches = 0
        self._caught = CaughtFailures()
        self._state: Any = None  # of the trainer that trains
        self._models: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # those that tell of their forward passes

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryCallback:
        """Return itself: the hooks of a model that is copied come here, and an open log has no copy."""
        return self

    # what the trainer calls

    def on_init_end(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **kwargs: Any) -> None:
        """Let the model tell when its forward pass begins and ends."""
        self._listen_to(model)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: torch.nn.Module, train_dataloader: Any, **kwargs: Any
    ) -> None:
        """Begin a log, of this model: it may be a new one, or the callback have been added to the trainer later."""
        self.close()
        for other in tuple(_OPEN):
            if other._state is not state:  # its trainer has failed, and its device is still on
                other.close()
        self._listen_to(model)
        self._is_training, self._state = True, state
        recorder = self._begin(model)
        num_batches = len(train_dataloader) if has_length(train_dataloader) else 0
        per_epoch = -(-num_batches // args.gradient_accumulation_steps)
        recorder.describe(total_steps=state.max_steps, steps_per_epoch=per_epoch)
        recorder.phase_recorder.step = state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Steps belong to the next epoch now."""
        if self._recorder is not None:
            self._recorder.epoch = int(state.epoch or 0) + 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a step."""
        if self._recorder is not None:
            self._step = _Step(time.perf_counter())
            self._recorder.phase_recorder.step = state.global_step + 1
            self._recorder.phase_recorder.micro_step = 0
            self._switch_to(Phase.DATA)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A micro-batch that is not the step's last is over."""
        if self._recorder is not None:
            self._switch_to(None)
            self._recorder.phase_recorder.micro_step += 1
            self._switch_to(Phase.DATA)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """The step's last micro-batch is over."""
        if self._step is not None and optimizer is not None:
            self._step.learning_rate = float(optimizer.param_groups[0]["lr"])  # afterwards it is the next step's
        self._switch_to(Phase.OPTIMIZER)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End a step; a checkpoint without an evaluation before it begins here."""
        self._switch_to(None)
        if self._recorder is not None and self._step is not None:
            step, phase_recorder = self._step, self._recorder.phase_recorder
            with phase_recorder.device.on_host():
                loss = step.loss(phase_recorder.device.read)
            step.losses.clear()
            phase_recorder.end_step(step.shapes, loss, None, step.learning_rate, time.perf_counter() - step.begin)
            self._note_done_again(self._caught.note_step())
            self._tracking.send(self._recorder)
        self._step = None
        self._begin_checkpoint(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Checkpoints may be due now too."""
        self._begin_checkpoint(control)

    def on_prediction_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """A batch of an evaluation or a prediction is over."""
        if model is not None:
            self._listen_to(model)
        self._switch_to(None)
        self._num_eval_batches += 1

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """An evaluation is over."""
        self._evaluation_ends((metrics or {}).get("eval_loss"))
        if self._is_training and control.should_save:
            self._switch_to(Phase.CHECKPOINT)

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        """A prediction is over."""
        self._evaluation_ends(metrics.get("test_loss"))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint has been written."""
        if self._phase is not None and self._phase.phase is Phase.CHECKPOINT:
            self._switch_to(None)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the log."""
        self._is_training = False
        self.close()

    # what its user calls

    def report(self) -> None:
        """Print the report on the last log, which ends with it; a failure that ends it here prints it itself."""
        was_open = self._recorder is not None
        self.close()
        if self._last is not None and not (was_open and self._last.has_told):
            self._last.report()

    def _repr_html_(self) -> str | None:
        """Return the report for a notebook's cell."""
        return None if self._last is None else self._last._repr_html_()

    def close(self) -> None:
        """End the log. Where the trainer failed, PyTorch code runs on the recorded device until then."""
        recorder, phase = self._recorder, self._phase
        has_failed = phase is not None or self._is_training
        self._recorder = self._phase = self._step = self._state = None
        self._is_training = False
        if recorder is None:
            return
        atexit.unregister(self.close)
        _OPEN.discard(self)
        stack, self._stack = self._stack, ExitStack()
        stack.callback(self._tracking.end)
        if not has_failed:
            _write_done_again(recorder, self._caught.note_end())
            stack.close()
            return
        # the trainer left a phase without ending it, or never told that the training is over
        if phase is not None:
            recorder.phase_recorder.end_phase(phase)
        gc.collect()  # what the dead frames held is no evidence of cycles
        where = "between two phases" if phase is None else f"in {phase.phase}"
        error = recorder.failure or RuntimeError(f"the trainer ended {where}")
        stack.__exit__(type(error), error, None)

    # the state between

    def _listen_to(self, model: torch.nn.Module) -> None:
        self._models.add(model)
        # the copy of a model has its hooks
        if not any(getattr(hook, "__self__", None) is self for hook in model._forward_pre_hooks.values()):
            model.register_forward_pre_hook(self._forward_begins, with_kwargs=True)
            model.register_forward_hook(self._forward_ends, with_kwargs=True)

    def _begin(self, model: torch.nn.Module) -> Recorder:
        self._recorder = self._last = self._stack.enter_context(self._open())
        self._caught = self._recorder.follow_failures()
        self._recorder.describe(model)
        self._tracking.begin(self._recorder)
        atexit.register(self.close)
        self._after_cell(self._close_where_it_failed)
        _OPEN.add(self)
        return self._recorder

    def _after_cell(self, action: Callable[[Any], None]) -> None:
        """Let the action be called when the notebook's cell has ended; a trainer tells nothing of failures."""
        ipython = sys.modules.get("IPython")
        shell = None if ipython is None else ipython.get_ipython()
        if shell is not None:
            with suppress(ValueError):  # one that is registered
                shell.events.unregister("post_run_cell", action)
            shell.events.register("post_run_cell", action)

    def _close_where_it_failed(self, cell: Any) -> None:
        if self._recorder is not None and self._recorder.failure is not None and not cell.success:
            self.close()

    def _switch_to(self, phase: Phase | None, batch: BatchShape | None = None, index: int = 0) -> None:
        """End the running phase and begin the next one."""
        if self._recorder is None:
            return
        phase_recorder, running = self._recorder.phase_recorder, self._phase
        if running is not None:
            phase_recorder.end_phase(running)
        self._recorder.failure = None
        self._phase = None if phase is None else phase_recorder.begin_phase(phase, batch, index)

    def _forward_begins(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if model not in self._models:
            return  # a copy
        if model.training and self._step is not None and self._recorder is not None:
            self._note_call(model, kwargs or args, "training")
            shape = batch_shape_on_host(self._recorder.device, kwargs or args)
            if shape is not None:
                self._step.shapes.append(shape)
            self._step.is_share = kwargs.get("num_items_in_batch") is not None
            self._switch_to(Phase.FORWARD, shape)
        elif not model.training and self._step is None:
            recorder = self._recorder or self._begin(model)
            self._note_call(model, kwargs or args, "evaluation")
            if self._phase is None or self._phase.phase is not Phase.EVAL:  # generating takes many passes for a batch
                shape = batch_shape_on_host(recorder.device, kwargs or args)
                self._switch_to(Phase.EVAL, shape, self._num_eval_batches)

    def _note_call(self, model: torch.nn.Module, given: tuple[Any, ...] | dict[str, Any], mode: str) -> None:
        values = given.values() if isinstance(given, dict) else given
        self._note_done_again(self._caught.note_call(model, values, mode))

    def _note_done_again(self, failures: Iterable[int]) -> None:
        if self._recorder is not None:
            _write_done_again(self._recorder, failures)

    def _forward_ends(self, model: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._recorder is None or self._phase is None or self._phase.phase not in (Phase.FORWARD, Phase.EVAL):
            return
        if model not in self._models:
            return  # a copy
        phase_recorder = self._recorder.phase_recorder
        loss = output if isinstance(output, torch.Tensor) else field_of(output, "loss")
        cache = field_of(output, "past_key_values")
        phase_recorder.forward_facts = forward_facts(model, tensors_in(loss), cache, model.modules())
        if self._phase.phase is Phase.FORWARD and self._step is not None:
            step_loss = getattr(output, "loss", None)
            if isinstance(step_loss, torch.Tensor):
                self._step.losses.append(step_loss.detach())
            self._switch_to(Phase.BACKWARD, self._phase.batch)

    def _evaluation_ends(self, loss: float | None) -> None:
        if self._recorder is None:
            return
        phase_recorder = self._recorder.phase_recorder
        phase_recorder.write(EvalRecord(phase_recorder.step, phase_recorder.epoch, self._num_eval_batches, 0, loss))
        self._num_eval_batches = 0
        if not self._is_training:
            self.close()

    def _begin_checkpoint(self, control: Any) -> None:
        """Where an evaluation comes first, its end begins the checkpoint."""
        if control.should_save and not control.should_evaluate:
            self._switch_to(Phase.CHECKPOINT)


def _write_done_again(recorder: Recorder, failures: Iterable[int]) -> None:
    for failure in failures:
        recorder.phase_recorder.write(RetryRecord(failure, recorder.phase_recorder.step))
