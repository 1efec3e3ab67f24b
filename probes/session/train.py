"""Training in processes of its own, and the adapter that it leaves."""

from collections.abc import Callable
from pathlib import Path

from memory_harness.configs.launch import launched
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.log.errors import ConfigError, PeerLost
from memory_harness.harness.log.manifest import ADAPTER, LOG_FILE, checkpoints
from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.probes.detectors import detect
from memory_harness.probes.findings import Fix
from memory_harness.probes.fixes import propose
from memory_harness.probes.session.gate import Gate
from memory_harness.probes.session.messages import TrainArguments
from memory_harness.probes.session.process import LAUNCHER, WORKER, RunStopped, start_worker

WEIGHTS = "adapter_model.safetensors"
"""as peft calls it; its own constant needs PyTorch"""
WHOLE_MODEL = ("model.safetensors", "model.safetensors.index.json")
"""what transformers calls the weights of a model that was trained whole"""


def train_in_worker(
    gate: Gate,
    run: Path,
    on_tick: Callable[[], None],
    say: Callable[[str], None],
    *,
    resume: Path | None = None,
    allow_changes: bool = False,
) -> RunLog:
    """Train what the gate lets in, into the folder `run`; return what the log says.

    A run that went out of memory, in spite of all that it could do itself, goes on from its last checkpoint in a new
    process, with the cheapest fix that leaves optimizer and data as they are; and so on while there is one. Processes
    that a launcher has started are not started again.

    Args:
        on_tick: called a few times a second.
        say: takes a line for people.

    Raises:
        RunRefused: something that the user gave has to change.
        RunStopped: a signal ended it.
        RunDied: it died.
    """
    log = _train_once(gate, run, on_tick, resume, allow_changes)
    is_ours = launched() is None
    while is_ours and log.outcome is Outcome.OOM and checkpoints(run) and (fix := remedy(log, gate.config)):
        config = fix.apply(gate.config)
        assert config is not None, "propose offers only fixes that change something"
        step = log.end.step if log.end else 0
        say(f"out of memory at step {step}: {fix.title}, and on from {checkpoints(run)[-1].name}")
        gate = Gate(config, f"{gate.reason}; out of memory at step {step}, then {fix.name}")
        log = _train_once(gate, run, on_tick, run, True)
    return log


def train_with_others() -> int:
    """Train what the first of the processes that a launcher has started trains; return the exit code.

    Raises:
        RunRefused: something that the user gave has to change.
        RunDied: it died.
    """
    try:
        with start_worker(own_group=True) as worker:
            worker.follow(lambda: None)
    except RunStopped as error:
        return 128 + error.number
    except PeerLost:  # of which the first says more
        return 3
    return 0


def remedy(log: RunLog, config: RunConfig) -> Fix | None:
    """Return the cheapest fix for what a training run found that it can go on with; None where there is none."""
    for fix in propose(detect(log), config):
        changed = fix.apply(config)
        same_data = changed is not None and changed.data == config.data
        # a checkpoint holds the states of the optimizer that it was written by
        if changed is not None and same_data and changed.train.optimizer == config.train.optimizer:
            return fix
    return None


def _train_once(gate: Gate, run: Path, on_tick: Callable[[], None], resume: Path | None, allow_changes: bool) -> RunLog:
    arguments: TrainArguments = {
        "run": str(run),
        "reason": gate.reason,
        "resume": None if resume is None else str(resume),
        "allow_changes": allow_changes,
    }
    device = gate.config.device
    module = LAUNCHER if device.data_parallel_size > 1 and launched() is None else WORKER
    with start_worker(own_group=True, module=module) as worker:
        worker.train(gate.config, arguments, on_tick)
    return read_run_log(run / LOG_FILE, "--resume")


def adapter_in(folder: Path) -> Path:
    """Return the folder of the adapter that `--generate` names: a training run's, or the folder itself.

    Raises:
        ConfigError: there is none.
    """
    inside = folder / ADAPTER
    adapter = inside if inside.is_dir() else folder
    if not any((adapter / name).is_file() for name in (WEIGHTS, *WHOLE_MODEL)):
        raise ConfigError(
            f"--generate {folder}: no adapter in it (no {WEIGHTS}); name the folder of a training run that has"
            " evaluated, or of an adapter in peft's format"
        )
    return adapter
