"""A whole fine-tune: training under observation, the best adapter kept, replies and scores, artefacts on disk.

Beside what `harness.train.run_folder` writes into the run's folder, `adapter/` is the adapter with the lowest held-out
loss, in peft's format, with its model card. In the folder above, `GeneratedResponses.json` and `.csv` and
`LLAMAExperiments.json` are those of all runs there.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from memory_harness.harness.log.errors import CheckpointError, ConfigError
from memory_harness.harness.log.files import partial_folder, replace_folder, restore_replaced
from memory_harness.harness.log.manifest import ADAPTER, LOG_FILE
from memory_harness.harness.log.records import EvalRecord, Outcome, Phase, Record, RecoveryRecord
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.results.experiments import RESPONSES, append_experiment, append_responses
from memory_harness.harness.results.hub import push
from memory_harness.harness.results.model_card import write_model_card
from memory_harness.harness.results.replies import TUNED, Reply
from memory_harness.harness.strategies.adapter import evaluation_of, write_evaluation
from memory_harness.harness.strategies.base import TrainableStrategy
from memory_harness.harness.train.assessment import assess
from memory_harness.harness.train.execute import Ending, record_run
from memory_harness.harness.train.generate import vetted_replies
from memory_harness.harness.train.loop import answer_prompts
from memory_harness.harness.train.recovery import Protection, Unprotected
from memory_harness.harness.train.run import Run
from memory_harness.harness.train.run_folder import Hooks, train_run


def fine_tune(
    folder: Path,
    run: Run[TrainableStrategy],
    *,
    gate_reason: str,
    stop_signal: Callable[[], str],
    resume: Path | None = None,
    allow_changes: bool = False,
) -> Outcome:
    """Train into the folder, assess the best adapter, leave all artefacts; return how the run ended.

    Args:
        gate_reason, resume, allow_changes: see `train_run`.
        stop_signal: see `Hooks`.

    Raises:
        HarnessError: something that the user gave has to change.
    """
    replies: list[Reply] = []
    group = run.device.group
    best = BestAdapter(run.strategy, folder / ADAPTER)

    def adapter() -> Adapter:
        """Return it where all GPUs have to take part in that, whether it is needed now or not."""
        return run.strategy.adapter_on_host() if group.shares_layers else None

    def on_begin(recorder: PhaseRecorder) -> None:
        here = adapter()
        if group.rank == 0:
            best.begin(recorder, read_run_log(folder / LOG_FILE, "--resume"), here)

    def on_record(record: Record) -> None:
        if isinstance(record, EvalRecord):
            here = adapter()
            if group.rank == 0:
                best.consider(record, here)

    def finish(recorder: PhaseRecorder, protection: Protection) -> bool:
        here = adapter()
        evaluated = best.restore(recorder.step, here) if group.rank == 0 else None
        evaluated = group.gather(evaluated)[0]
        if group.rank and evaluated is not None and evaluated.step != recorder.step:
            run.strategy.load_adapter(folder / ADAPTER)
        found = assess(run, recorder, protection, evaluated)
        replies.extend(found or ())
        return found is not None

    hooks = Hooks(on_record, stop_signal, finish, on_begin)
    outcome = train_run(folder, run, hooks, gate_reason=gate_reason, resume=resume, allow_changes=allow_changes)
    if outcome is not Outcome.STOPPED and group.rank == 0:  # a run that goes on later is written down then
        leave_artefacts(run, folder, replies)
    return outcome


Adapter = dict[str, torch.Tensor] | None


class BestAdapter:
    """Keeps the adapter with the lowest held-out loss on disk: on the device there is never a second one.

    Which evaluation it is of lies beside it, in the same folder: a run can be killed between any two writes.

    Args:
        strategy: whose adapter it is.
        folder: where it is kept.
    """

    def __init__(self, strategy: TrainableStrategy, folder: Path) -> None:
        self._strategy = strategy
        self._folder = folder
        self._is_done = False
        self._recorder: PhaseRecorder | None = None
        self._best: EvalRecord | None = None

    def begin(self, recorder: PhaseRecorder, log: RunLog, adapter: Adapter = None) -> None:
        """Find out what a run that begins, or has been restored, has on disk.

        Args:
            recorder: takes what could not be written.
            log: of the run up to here. What is on disk but not in it comes from steps that do not count any more: they
                were lost, or are done otherwise now.
            adapter: as it is now, in host memory; None where the strategy can tell at any time. Likewise below.
        """
        self._recorder = recorder
        restore_replaced(self._folder)
        known = [record for record in log.evals if _counts(record)]
        on_disk = evaluation_of(self._folder)
        if any(repr(record) == repr(on_disk) for record in known):  # a loss that is no number equals nothing
            self._best = on_disk
        elif known:
            best = min(known, key=_loss)
            if best.step == recorder.step:  # it is the adapter that has just been restored
                self._keep(best, adapter)

    def consider(self, record: EvalRecord, adapter: Adapter = None) -> None:
        """Write the adapter out where no evaluation before this one was as good."""
        if self._is_done or not _counts(record):
            return
        if self._best is None or _loss(record) < _loss(self._best):
            self._keep(record, adapter)

    def _keep(self, record: EvalRecord, values: Adapter) -> None:
        """Put the adapter as it is now in the folder's place; a full disk is no reason to stop training."""
        try:
            with partial_folder(self._folder) as partial:
                adapter = partial / ADAPTER
                self._strategy.export(adapter, values)
                write_evaluation(adapter, record)
                replace_folder(self._folder, adapter)
        except OSError as error:  # what was the best so far stays
            self._note(record, error)
        else:
            self._best = record

    def _note(self, record: EvalRecord, error: OSError) -> None:
        if self._recorder is not None:
            reason = error.strerror or str(error)
            self._recorder.write(RecoveryRecord(Phase.EVAL, record.step, record.epoch, "skip-adapter", reason))

    def restore(self, step: int, adapter: Adapter = None) -> EvalRecord | None:
        """End the search; give the strategy the best adapter again where a later step has another; return its loss.

        Raises:
            CheckpointError: there is no adapter on disk yet, and none can be written.
        """
        self._is_done = True
        if self._best is None:
            self._export_last(adapter)
        elif self._best.step != step:
            self._strategy.load_adapter(self._folder)
        return self._best

    def _export_last(self, adapter: Adapter) -> None:
        try:
            self._strategy.export(self._folder, adapter)
        except OSError as error:
            reason, run_folder = error.strerror or error, self._folder.parent
            raise CheckpointError(
                f"{self._folder}: cannot be written ({reason}); make room, then go on with --resume {run_folder}"
            ) from None


def _counts(record: EvalRecord) -> bool:
    return record.model == TUNED and record.loss is not None


def _loss(record: EvalRecord) -> float:
    return math.inf if record.loss is None or math.isnan(record.loss) else record.loss


def answer_only(adapter: Path, run: Run[TrainableStrategy], log: Path) -> Outcome:
    """Answer the prompts with a trained adapter, log that to `log`, add the replies to those in the output folder.

    They are added batch by batch: what ends it costs the replies of one.

    Raises:
        HarnessError: the adapter is not of this model, or a file cannot be written.
    """

    def body(recorder: PhaseRecorder) -> Ending:
        run.strategy.load_adapter(adapter)
        about, output = read_run_log(log).run, Path(run.config.output.output)

        def keep(replies: list[Reply]) -> None:
            append_responses(output, about, run.data, replies)

        keep(vetted_replies(run.data))
        answer_prompts(run, recorder, Unprotected(run, log.parent), keep=keep)
        return Ending(Outcome.COMPLETED)

    with LogWriter(log) as writer:
        return record_run(run, writer.write, body)


def leave_artefacts(run: Run[TrainableStrategy], folder: Path, replies: Sequence[Reply]) -> None:
    """Write down the run and its replies beside those of other runs, and the adapter's model card; push the adapter.

    Raises:
        HarnessError: a file cannot be written, or the hub does not take the adapter.
    """
    log, parent, adapter = read_run_log(folder / LOG_FILE), folder.parent, folder / ADAPTER
    artefacts = {"log": str(folder / LOG_FILE)}
    if adapter.exists():
        try:
            write_model_card(adapter, log)
        except OSError as error:
            raise ConfigError(f"{adapter}: its model card cannot be written ({error.strerror}); make room") from None
        artefacts["adapter"] = str(adapter)
    if replies:
        append_responses(parent, log.run, run.data, replies, replace_earlier=True)
        artefacts["responses"] = str(parent / RESPONSES)
    append_experiment(parent, log, run.data, artefacts)
    repository = run.config.output.push_to_hub
    if repository and adapter.exists() and log.outcome is Outcome.COMPLETED:
        push(adapter, repository)
