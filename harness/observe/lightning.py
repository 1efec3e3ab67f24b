"""Records a training of Lightning's `Trainer` through the hooks that it offers its callbacks.

memory = LightningCallback("runs/mine", budget="14.4 GiB")
Trainer(callbacks=[memory]).fit(module, loader)
memory.report()

FORWARD     from the begin of a batch to its backward pass
BACKWARD    from there to the optimizer, or to the end of the batch where gradients are accumulated
OPTIMIZER   from there to the end of the batch
EVAL        a batch of a validation
CHECKPOINT  from the moment that a checkpoint is put together to whatever comes next
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:  # its older name
    from pytorch_lightning.callbacks import Callback

from memory_harness.harness.log.records import BatchShape, EvalRecord, Phase
from memory_harness.harness.observe.own_loop import FilePath, Recorder, batch_shape_on_host
from memory_harness.harness.observe.recorder import BegunPhase
from memory_harness.harness.observe.tracking import Tracking


class LightningCallback(Callback):
    """Records one log each time that the trainer fits; its arguments are those of `MemoryCallback`."""

    def __init__(
        self,
        path: FilePath,
        *,
        device: str = "auto",
        gpu: str | None = None,
        budget: str | int | None = None,
        log_to: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._tracking = Tracking(log_to)
        self._open = lambda: Recorder.open(path, device=device, gpu=gpu, budget=budget)
        self._stack = ExitStack()
        self._recorder: Recorder | None = None
        self._last: Recorder | None = None
        self._phase: BegunPhase | None = None
        self._begin = 0.0
        self._shapes: list[BatchShape] = []
        self._losses: list[Any] = []
        self._learning_rate: float | None = None  # of the step whose optimizer has begun
        self._num_eval_batches = 0

    # what the trainer calls

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a log."""
        self.close()
        recorder = self._recorder = self._last = self._stack.enter_context(self._open())
        total = int(trainer.estimated_stepping_batches) if trainer.max_epochs != -1 else 0
        recorder.describe(pl_module, total_steps=max(0, total))
        self._tracking.begin(recorder)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Steps belong to the next epoch now."""
        if self._recorder is not None:
            self._recorder.epoch = int(trainer.current_epoch) + 1

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a step, or its next micro-batch."""
        if self._recorder is None:
            return
        if not self._shapes and not self._losses:
            self._begin = time.perf_counter()
            self._recorder.phase_recorder.step += 1
            self._recorder.phase_recorder.micro_step = 0
        shape = batch_shape_on_host(self._recorder.device, batch)
        if shape is not None:
            self._shapes.append(shape)
        self._switch_to(Phase.FORWARD, shape)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """The forward pass is over."""
        self._losses.append(loss.detach())
        self._switch_to(Phase.BACKWARD, self._shapes[-1] if self._shapes else None)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The last backward pass of the step is over."""
        self._learning_rate = float(optimizer.param_groups[0]["lr"])
        self._switch_to(Phase.OPTIMIZER)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch is over, and with it the step where its optimizer has run."""
        self._switch_to(None)
        if self._recorder is None:
            return
        phase_recorder = self._recorder.phase_recorder
        if self._learning_rate is None:
            phase_recorder.micro_step += 1
            return
        with phase_recorder.device.on_host():
            values = [phase_recorder.device.read(loss) for loss in self._losses]
        known = [value for value in values if value is not None]
        # each is a share of the step's loss where Lightning accumulates gradients
        loss = sum(known) if known else None
        shapes, learning_rate = self._shapes, self._learning_rate
        self._shapes, self._losses, self._learning_rate = [], [], None
        phase_recorder.end_step(shapes, loss, None, learning_rate, time.perf_counter() - self._begin)
        self._tracking.send(self._recorder)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A batch of a validation begins."""
        if self._recorder is not None:
            shape = batch_shape_on_host(self._recorder.device, batch)
            self._switch_to(Phase.EVAL, shape, self._num_eval_batches)
            self._num_eval_batches += 1

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """It is over."""
        self._switch_to(None)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """A validation is over."""
        if self._recorder is not None and self._num_eval_batches:
            found = trainer.callback_metrics.get("val_loss")
            recorder = self._recorder.phase_recorder
            with recorder.device.on_host():
                loss = None if found is None else float(found)
            recorder.write(EvalRecord(recorder.step, recorder.epoch, self._num_eval_batches, 0, loss))
        self._num_eval_batches = 0

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """A checkpoint is about to be written."""
        self._switch_to(Phase.CHECKPOINT)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the log."""
        self.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the log with what ended the training."""
        self.close(exception)

    # what its user calls

    def report(self) -> None:
        """Print the report on the last log."""
        self.close()
        if self._last is not None:
            self._last.report()

    def close(self, error: BaseException | None = None) -> None:
        """End the log, with the error that ended the training."""
        if self._recorder is None:
            return
        self._switch_to(None)
        self._tracking.end()
        self._recorder = None
        stack, self._stack = self._stack, ExitStack()
        self._shapes, self._losses, self._learning_rate = [], [], None
        if error is None:
            stack.close()
        else:
            stack.__exit__(type(error), error, error.__traceback__)

    def _switch_to(self, phase: Phase | None, batch: BatchShape | None = None, index: int = 0) -> None:
        if self._recorder is None:
            return
        running = self._phase
        if running is not None:
            self._recorder.phase_recorder.end_phase(running)
        self._phase = None
        if phase is not None:
            self._phase = self._recorder.phase_recorder.begin_phase(phase, batch, index)
