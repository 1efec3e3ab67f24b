"""What lets a training run in: a probe of the same configuration that passed, as configured or with verified fixes."""

from dataclasses import dataclass
from pathlib import Path

from memory_harness.configs.inputs import open_input
from memory_harness.configs.launch import launched
from memory_harness.configs.models import ModelShape, find_model
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.tokenizer import TINY_VOCAB_SIZE, LengthEstimate, load_tokenizer
from memory_harness.harness.log.errors import ConfigError, LogError
from memory_harness.harness.log.manifest import (
    LOG_FILE,
    MANIFEST_FILE,
    changed_fields,
    newest_checkpoint,
    read_manifest,
)
from memory_harness.harness.log.records import Outcome, RunRecord, record_from_json
from memory_harness.harness.log.runlog import MAX_LINE_BYTES, RunLog, read_run_log
from memory_harness.harness.results.experiments import is_written_down
from memory_harness.harness.strategies.weights import find_checkpoint
from memory_harness.probes.session.session import FIRST_LOG, Session, session_of_folder

LAUNCHERS = "torchrun or another launcher"
FORCED = "--force, without a probe"


@dataclass(frozen=True)
class Gate:
    """What may train, and why."""

    config: RunConfig
    """with the fixes of the probe that passed"""
    reason: str
    """for the log of the training run"""


def gate_of(session: Session, folder: Path) -> Gate | None:
    """Return what the probe lets in, None where it did not pass."""
    log = session.with_fixes or session.as_configured
    if log.outcome is not Outcome.COMPLETED or log.run.fault:
        return None
    reason = f"the probe in {folder} passed"
    fixes = [fix.name for fix in session.fixes if fix.applied]
    if fixes:
        reason += f" with {', '.join(fixes)}"
    return Gate(session.fixed_config, reason)


def find_passing_probe(config: RunConfig, source: str) -> tuple[Gate, Session | RunLog] | None:
    """Return the newest probe in the output folder that lets the configuration in, and what it found.

    A log counts that was made of just this configuration by a probe on the same kind of device: a simulated pass does
    not stand for a measured one.

    Args:
        source: `cuda` or `simulated`, where the training would run.
    """
    folders = sorted((log.parent for log in Path(config.output.output).glob(f"*/{FIRST_LOG}")), reverse=True)
    for folder in folders:
        for log in sorted(folder.glob("*.jsonl")):
            if not _begins_alike(log, config.fingerprint(), source):
                continue
            found = _gate_and_evidence(log, config)
            if found is not None:
                return found
    return None


def _begins_alike(log: Path, fingerprint: str, source: str) -> bool:
    """Return whether a log's first line is that of such a run; all of it would take long to read.

    Simulations beside a measured log are of another source.
    """
    try:
        with open_input(log) as file:
            record = record_from_json(file.readline(MAX_LINE_BYTES))
    except (OSError, ValueError):  # damaged, unreadable, no file
        return False
    return isinstance(record, RunRecord) and (record.fingerprint, record.source) == (fingerprint, source)


def _gate_and_evidence(log: Path, config: RunConfig) -> tuple[Gate, Session | RunLog] | None:
    """Return what a log of this configuration lets in, and what it is let in for; None where nothing is."""
    try:
        if log.name == FIRST_LOG:
            session = session_of_folder(log.parent)
            gate = gate_of(session, log.parent)
            return None if gate is None else (gate, session)
        run = read_run_log(log)
    except (LogError, ArithmeticError, LookupError, TypeError, ValueError):  # an old log stops no training
        return None
    # with a fault planted, another run has passed than the one that would train
    if run.outcome is not Outcome.COMPLETED or run.run.fault:
        return None
    return Gate(config, f"the probe in {log.parent} passed"), run


def run_of(resume: Path) -> Path:
    """Return the folder of the run that `--resume` names: itself, or the one that its checkpoint lies in."""
    is_checkpoint = resume.name.startswith("checkpoint-") or (resume / MANIFEST_FILE).exists()
    return resume.parent if is_checkpoint else resume


def gate_of_run(resume: Path, config: RunConfig) -> Gate:
    """Return the gate of a run that goes on: it was let in when it began.

    Raises:
        CheckpointError: there is no checkpoint to go on from, or it is damaged.
    """
    read_manifest(newest_checkpoint(resume))
    log = run_of(resume) / LOG_FILE
    return Gate(config, read_run_log(log, "--resume").run.let_in_by if log.exists() else "a checkpoint without a log")


def is_complete(resume: Path, config: RunConfig) -> bool:
    """Return whether nothing is left to do of a run: trained to the end, scored, and written down.

    A checkpoint that is named, a change that was allowed, or an adapter that is to be uploaded is something to do.
    """
    log = resume / LOG_FILE
    if config.output.push_to_hub is not None or not log.exists():
        return False
    changed = changed_fields(read_manifest(newest_checkpoint(resume)), config)
    return not changed and read_run_log(log, "--resume").outcome is Outcome.COMPLETED and is_written_down(resume)


def source_of(config: RunConfig) -> str:
    """Return where the configuration runs here: on `cuda`, or `simulated`."""
    if config.device.device == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "simulated"
    return config.device.device


def check_num_gpus(config: RunConfig, source: str) -> None:
    """Refuse to train on more GPUs than are here.

    Raises:
        ConfigError: there are fewer.
    """
    if source != "cuda":
        return
    import torch

    place, present = launched(), torch.cuda.device_count()
    if place is not None and config.device.engine == "split":
        raise ConfigError([f"--sharding split: one process drives all GPUs; start it without {LAUNCHERS}"])
    wanted = config.device.num_gpus if place is None else place.local_size
    if not present:
        raise ConfigError(["--device cuda: there is no CUDA GPU here; leave it out, or give --device simulated"])
    if wanted > present:
        allowed = "1" if present == 1 else f"1 to {present}"
        flag = "--num-gpus" if place is None else "--nproc-per-node"
        raise ConfigError([f"{flag} {wanted}: more GPUs than are here (allowed: {allowed})"])


def check_trainable(flag: str, config: RunConfig, computes: bool) -> None:
    """Refuse to train unless values are computed, and weights and tokenizer are the model's.

    Args:
        flag: the one that asks for it.
        computes: whether the device that the configuration asks for computes anything.

    Raises:
        ConfigError: one line for each thing that is missing.
    """
    shape = find_model(config.model.model)
    problems = []
    if config.train.objective == "grpo":
        problems.append(
            f"{flag}: --objective grpo is simulated only, as rewards are not known here; train it by TRL's GRPOTrainer"
        )
    if not computes:
        problems.append(
            f"{flag}: there is no CUDA GPU here, and a simulated card computes nothing; train on a GPU, or a tiny "
            "model with --preset smoke_cpu (--device simulated --tensors real)"
        )
    if not config.model.random_weights and not is_made_for_tests(shape):
        if find_checkpoint(shape) is None:
            problems.append(
                f"{flag}: no weights of {shape.name} on this machine; give a folder with --model DIR, fetch them with "
                "--download, or train random ones, for a benchmark, with --random-weights"
            )
        if isinstance(load_tokenizer(config, shape.vocab_size), LengthEstimate):
            problems.append(
                f"{flag}: no tokenizer of {shape.name} on this machine; give a folder with --tokenizer, "
                "or install the extra `tokenizer` for Llama 3"
            )
    if problems:
        raise ConfigError(problems)


def is_made_for_tests(shape: ModelShape) -> bool:
    """Return whether the model is so small that nobody would take its random weights for a trained model's."""
    return shape.vocab_size < TINY_VOCAB_SIZE
