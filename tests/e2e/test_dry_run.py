"""`run_probe.py --dry-run SCRIPT`: training scripts as people write them, each for a card that is not there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import Outcome, Phase, StepRecord
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.harness.observe.run_script import run_script
from memory_harness.harness.observe.script import ScriptObserver
from memory_harness.reports import entry
from tests.e2e.commands import run_probe

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "dry"
CARD = "t4"
MIB = 2**20
WORKSPACE_BYTES = int(18.25 * MIB)
"""cuBLAS and cuBLASLt, of the script's thread and of autograd's, on the T4"""

TRAINING = frozenset({Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER})


def gpt(vocab: int, positions: int, width: int, layers: int) -> int:
    """Return the number of parameters of a GPT-2 with tied embeddings."""
    layer = 12 * width**2 + 13 * width
    return (vocab + positions) * width + layers * layer + 2 * width


def llama(vocab: int, width: int, inner: int, layers: int, *, keys: int, biases: int = 0) -> int:
    """Return the number of parameters of a Llama, its head being a matrix of its own."""
    layer = 2 * width**2 + 2 * width * keys + 3 * width * inner + 2 * width + biases
    return 2 * vocab * width + layers * layer + width


LLAMA = llama(512, 64, 160, 2, keys=32)
QWEN = llama(512, 64, 160, 2, keys=32, biases=64 + 2 * 32)


@dataclass(frozen=True)
class Case:
    """A script, and what is to be seen of it.

    Args:
        least_bytes: what the card must hold at the peak: weights, gradients, states of the optimizer.
        more_bytes: most that may come on top: activations, logits, copies of the optimizer.
    """

    script: str
    steps: int
    least_bytes: float
    more_bytes: float = 6 * MIB
    arguments: tuple[str, ...] = ()
    phases: frozenset[Phase] = TRAINING
    is_slow: bool = False

    @property
    def name(self) -> str:
        return " ".join((self.script, *self.arguments))


CASES = (
    # float32: a weight, its gradient and two states of AdamW take 16 bytes
    Case("loop_autocast_bf16", 6, 16 * gpt(512, 128, 64, 2)),
    Case("loop_gradscaler_fp16", 6, 16 * LLAMA, is_slow=True),
    Case("loop_sgd_transformer", 6, 12 * (2 * 300 * 64 + 300 + 2 * (12 * 64**2 + 13 * 64)), is_slow=True),
    Case("loop_adafactor", 5, 4 * llama(512, 64, 128, 2, keys=32, biases=128)),
    Case("loop_bnb_8bit", 5, 4 * llama(1024, 64, 256, 2, keys=32), is_slow=True),
    Case("loop_bnb_8bit", 5, 4 * llama(1024, 64, 256, 2, keys=32), arguments=("--optimizer", "paged32bit")),
    Case("trainer_full", 6, 16 * gpt(512, 64, 64, 2), phases=TRAINING | {Phase.EVAL}, is_slow=True),
    Case(
        "trainer_full",
        6,
        16 * gpt(512, 64, 64, 2),
        arguments=("--eval_accumulation_steps", "1"),
        phases=TRAINING | {Phase.EVAL},
        is_slow=True,
    ),
    Case("trainer_lora", 6, 2 * llama(512, 64, 160, 3, keys=32), phases=TRAINING | {Phase.CHECKPOINT}, is_slow=True),
    Case("trainer_lora", 6, 2 * llama(512, 64, 160, 3, keys=32), arguments=("--reentrant",), is_slow=True),
    Case("trainer_t5", 4, 16 * 300 * 64, phases=TRAINING | {Phase.EVAL}, is_slow=True),
    Case("trainer_bert", 8, 16 * 400 * 64, phases=TRAINING | {Phase.EVAL, Phase.CHECKPOINT}, is_slow=True),
    *(
        Case("peft_kinds", 5, 2 * QWEN, arguments=("--kind", kind), is_slow=True)
        for kind in ("dora", "rslora", "modules", "olora")
    ),
    Case("peft_4bit", 6, 2 * 2 * 1024 * 128),
    Case("trl_sft", 6, 8 * llama(512, 64, 160, 2, keys=32), 20 * MIB, phases=TRAINING | {Phase.EVAL}, is_slow=True),
    *(
        Case("trl_preferences", 5, 2 * LLAMA, 20 * MIB, arguments=("--method", method), is_slow=True)
        for method in ("dpo", "orpo", "cpo")
    ),
    Case("trl_grpo", 4, 8 * QWEN, 20 * MIB, is_slow=True),
    Case("accelerate_loop", 6, 16 * (2 * 512 * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64), is_slow=True),
    Case("lightning_module", 6, 16 * (2 * (64**2 + 3 * 64) + 650), phases=TRAINING | {Phase.EVAL}, is_slow=True),
    Case("lightning_module", 6, 16 * (2 * (64**2 + 3 * 64) + 650), arguments=("--precision", "16-mixed"), is_slow=True),
    Case("vit_loader", 6, 16 * 2 * (4 * 64**2 + 2 * 64 * 128), phases=TRAINING | {Phase.EVAL}),
    Case("convnet", 6, 12 * (4 * 9 * 16**2), is_slow=True),
    Case("convnet", 6, 12 * (4 * 9 * 16**2), arguments=("--channels-last",), is_slow=True),
    Case("generate_after", 4, 8 * LLAMA, phases=TRAINING | {Phase.GENERATE}),
    Case("compiled", 5, 8 * LLAMA, is_slow=True),
    Case("nanogpt_like", 7, 16 * gpt(256, 64, 64, 2) - 16 * 2 * 4 * 64),
    Case("nanogpt_like", 7, 16 * gpt(256, 64, 64, 2) - 16 * 2 * 4 * 64, arguments=("--dtype", "float16"), is_slow=True),
)


@pytest.fixture(scope="module", autouse=True)
def _imported_once():
    """Import what most of the scripts do: each runs in a process that is forked from this one."""
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import transformers.generation.utils
    import transformers.trainer  # noqa: F401


def parameters(cases: Sequence[Case]) -> list[object]:
    """Return the cases, the slow ones marked."""
    return [pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.is_slow else []) for case in cases]


def dry_run(script: Path, folder: Path, *arguments: str, flags: Sequence[str] = ()) -> int:
    options = ("--gpu", CARD, "--output", str(folder / "runs"), "--no-fixes", *flags)
    return entry.main(["--dry-run", str(script), *options, "--", *arguments])


def log_in(folder: Path) -> RunLog:
    (log,) = (folder / "runs").glob("*/as_configured.jsonl")
    return read_run_log(log)


@pytest.mark.parametrize("case", parameters(CASES))
def test_a_script_runs_and_takes_what_arithmetic_says(case, tmp_path, monkeypatch):
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    assert dry_run(SCRIPTS / f"{case.script}.py", tmp_path, *case.arguments) == 0
    log = log_in(tmp_path)
    assert log.outcome is Outcome.COMPLETED
    assert len(log.steps) == case.steps
    assert {record.phase for record in log.phases} >= case.phases
    peak = max(record.after.peak_allocated_bytes for record in log.phases)
    assert case.least_bytes <= peak <= case.least_bytes + WORKSPACE_BYTES + case.more_bytes
    assert list(cwd.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "line", "why"),
    [
        ("branch_on_loss", 12, "branches on a number read from the card"),
        pytest.param("branch_on_count", 7, "a count or a condition", marks=pytest.mark.slow),
        pytest.param("unknown_mask", 7, "how many elements a mask selects", marks=pytest.mark.slow),
        pytest.param("cuda_graph", 7, "torch.cuda.CUDAGraph", marks=pytest.mark.slow),
        ("unknown_operator", 10, "somebodys_kernels::scan"),
    ],
)
def test_what_hangs_on_values_is_refused_in_one_line(script, line, why, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert dry_run(SCRIPTS / "refused" / f"{script}.py", tmp_path) == 2
    (refusal,) = [text for text in capfd.readouterr().err.splitlines() if text.startswith("run_probe.py: ")]
    assert f"refused/{script}.py:{line}: " in refusal
    assert why in refusal


def test_an_array_of_a_tensor_on_the_card_fails_as_it_does_there(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert dry_run(SCRIPTS / "refused" / "numpy_on_card.py", tmp_path) == 3
    shown = capfd.readouterr().err
    assert 'numpy_on_card.py", line 10, in forward' in shown
    assert "can't convert cuda:0 device type tensor to numpy" in shown


def test_a_script_that_runs_out_of_memory_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dry_run(SCRIPTS / "refused" / "out_of_memory.py", tmp_path, flags=("--budget", "1 GiB")) == 1
    log = log_in(tmp_path)
    assert log.outcome is Outcome.OOM
    assert log.fatal_oom is not None
    assert (log.fatal_oom.phase, log.fatal_oom.step) == (Phase.FORWARD, 3)
    assert log.fatal_oom.requested_bytes == 65536 * 4096 * 4
    assert (log.fatal_oom.where or "").endswith("refused/out_of_memory.py:9")


@pytest.mark.slow
def test_checkpoints_of_a_real_run_are_neither_changed_nor_removed(tmp_path):
    kept = tmp_path / "lora-out" / "checkpoint-3" / "trainer_state.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}", encoding="utf-8")
    options = ("--gpu", CARD, "--no-fixes", "--output", "runs")
    ended = run_probe("--dry-run", str(SCRIPTS / "trainer_lora.py"), *options, folder=tmp_path)
    assert ended.code == 0, ended.stderr
    assert kept.read_text(encoding="utf-8") == "{}"
    assert [path.name for path in (tmp_path / "lora-out").rglob("*")] == ["checkpoint-3", "trainer_state.json"]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["lora-out", "runs"]


@pytest.mark.parametrize(
    ("script", "arguments", "on_host_bytes"),
    [
        pytest.param("convnet", (), 0, id="convnet"),
        pytest.param("loop_sgd_transformer", (), 0, id="loop_sgd_transformer", marks=pytest.mark.slow),
        # the data set, which a DataLoader keeps on the host
        pytest.param("loop_autocast_bf16", (), 24 * 64 * 8, id="loop_autocast_bf16", marks=pytest.mark.slow),
        pytest.param("peft_kinds", (), 0, id="peft_kinds", marks=pytest.mark.slow),
        pytest.param("nanogpt_like", ("--dtype", "float32"), 0, id="nanogpt_like", marks=pytest.mark.slow),
    ],
)
def test_what_stays_between_steps_is_what_a_real_run_on_the_host_keeps(
    script, arguments, on_host_bytes, tmp_path, monkeypatch
):
    """The script runs for real on the CPU, where it finds no card; all its tensors count as the card's there.

    What differs: data that stays on the host when there is a card counts on the CPU, and steps of an optimizer that
    takes its tensors one by one there, and all at once on a card, so that its peak is lower.
    """
    monkeypatch.chdir(tmp_path)
    assert dry_run(SCRIPTS / f"{script}.py", tmp_path, *arguments) == 0
    dry = log_in(tmp_path)
    real = steps_on_host(SCRIPTS / f"{script}.py", arguments, tmp_path / "real.jsonl")
    assert len(dry.steps) == len(real) > 0
    for ours, theirs in zip(dry.steps, real, strict=True):
        assert abs(ours.allocated_bytes - theirs.allocated_bytes) <= on_host_bytes + 16 * 1024


def steps_on_host(script: Path, arguments: Sequence[str], log: Path) -> list[StepRecord]:
    """Return the steps of a real run whose CPU tensors lie on the simulated card."""
    # in a process of its own: PyTorch's threads, once there are some, do not survive that others are forked
    process = multiprocessing.get_context("fork").Process(target=run_on_host, args=(script, arguments, log))
    process.start()
    process.join()
    return read_run_log(log).steps


def run_on_host(script: Path, arguments: Sequence[str], log: Path) -> None:
    card = find_card(CARD)
    device = SimulatedDevice(card, card.budget_bytes, computes=True, adopts=True)
    with LogWriter(log) as writer, ScriptObserver(device, writer.write, script.name).running():
        run_script(str(script), arguments)
