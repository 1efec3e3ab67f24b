"""Loops that are not ours: what is recorded of them, on CPU tensors that count as a card's."""

import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch

from memory_harness import print_report
from memory_harness.configs.units import MIB
from memory_harness.harness.log.errors import ConfigError, HarnessError
from memory_harness.harness.log.records import BatchShape, Outcome, Phase
from memory_harness.harness.log.runlog import read_run_log
from memory_harness.harness.observe import own_loop
from memory_harness.harness.observe.facts import batch_shape, model_facts
from memory_harness.harness.observe.own_loop import Recorder


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def opened(tmp_path):
    def open_log(budget="256 MiB", name="log"):
        return Recorder.open(tmp_path / name, device="simulated", budget=budget)

    return open_log


def read(tmp_path, name="log"):
    return read_run_log(tmp_path / f"{name}.jsonl")


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    """Ten lines, word for word, on a model and batches as transformers makes them."""
    monkeypatch.chdir(tmp_path)
    lines = [line[4:] for line in own_loop.__doc__.splitlines() if line.startswith("    ")]

    class Output:
        def __init__(self, loss):
            self.loss = loss

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(100, 8)

        def forward(self, input_ids, attention_mask):
            return Output(self.embed(input_ids).square().sum())

    model = Model()
    batch = {"input_ids": torch.ones(2, 8, dtype=torch.int64), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    names = {"model": model, "loader": [batch] * 4, "optimizer": torch.optim.AdamW(model.parameters())}
    exec("\n".join(lines), names)
    log = read_run_log(tmp_path / "runs" / "mine.jsonl")
    assert log.outcome is Outcome.COMPLETED
    assert [s.lengths for s in log.steps] == [(8, 8)] * 4
    assert [p.phase for p in log.phases[:3]] == [Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER]
    assert "FITS" in capsys.readouterr().out


def test_peaks_are_what_is_allocated(opened, tmp_path):
    with opened() as r, r.step():
        with r.phase("forward"):
            torch.zeros(MIB, 3)  # dies at once
            kept = torch.zeros(MIB)
        with r.phase("backward"):
            torch.zeros(MIB, 2)
    forward, backward = read(tmp_path).phases
    assert forward.after.peak_allocated_bytes == 12 * MIB
    assert forward.after.allocated_bytes == kept.nbytes == 4 * MIB
    assert backward.after.peak_allocated_bytes == 12 * MIB


def test_what_was_made_before_counts_from_its_first_use(opened, tmp_path):
    used, unused = torch.zeros(MIB), torch.zeros(MIB)
    with opened() as r, r.step(), r.phase("forward"):
        used.sum()
    assert 4 * MIB <= read(tmp_path).peak_allocated_bytes < 5 * MIB
    assert unused.numel()


def test_a_step_without_phases_is_a_phase(opened, tmp_path):
    with opened() as r:
        for _ in range(2):
            with r.step(torch.zeros(2, 16)):
                torch.zeros(MIB)
    log = read(tmp_path)
    assert [(p.phase, p.step) for p in log.phases] == [(Phase.STEP, 1), (Phase.STEP, 2)]
    assert log.steps[0].lengths == (16, 16)


def test_what_happens_between_phases_is_seen(opened, tmp_path):
    with opened() as r, r.step():
        with r.phase("forward"):
            torch.zeros(16)
        torch.zeros(MIB)
        with r.phase("backward"):
            torch.zeros(16)
    phases = read(tmp_path).phases
    assert [p.phase for p in phases] == [Phase.FORWARD, Phase.STEP, Phase.BACKWARD]
    assert phases[1].after.peak_allocated_bytes == 4 * MIB


def test_micro_batches_make_one_step(opened, tmp_path):
    with opened() as r, r.step() as step:
        for length in (8, 16):
            with r.phase("forward", torch.zeros(1, length)):
                torch.zeros(16)
        step.loss = 2.5
    log = read(tmp_path)
    assert (log.steps[0].micro_steps, log.steps[0].lengths, log.steps[0].loss) == (2, (8, 16), 2.5)
    assert [p.micro_step for p in log.phases] == [0, 1]


def test_evaluation_batches_are_counted(opened, tmp_path):
    with opened() as r:
        with r.step():
            torch.zeros(16)
        for _ in range(3):
            with r.phase("eval", torch.zeros(4, 8)):
                torch.zeros(16)
        r.evaluated(loss=1.5, target_tokens=96)
    log = read(tmp_path)
    assert [p.index for p in log.phases if p.phase is Phase.EVAL] == [0, 1, 2]
    assert (log.evals[0].num_batches, log.evals[0].loss) == (3, 1.5)


def test_running_out_is_pytorchs_error_and_the_logs_outcome(opened, tmp_path):
    error = pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate 64\.00 MiB")
    with error, opened("48 MiB") as r, r.step(torch.zeros(1, 8)), r.phase("forward"):
        torch.zeros(16, MIB)
    log = read(tmp_path)
    assert log.outcome is Outcome.OOM
    oom = log.fatal_oom
    assert (oom.phase, oom.step, oom.requested_bytes, oom.budget_bytes) == (Phase.FORWARD, 1, 64 * MIB, 48 * MIB)
    assert "test_own_loop.py" in oom.where


def test_an_error_that_the_loop_catches_ends_nothing(opened, tmp_path):
    with opened("48 MiB") as r:
        for size in (16, 1):
            with r.step(), r.phase("forward"):
                try:
                    torch.zeros(size, MIB)
                except torch.OutOfMemoryError:
                    continue
    log = read(tmp_path)
    assert log.outcome is Outcome.COMPLETED
    assert len(log.ooms) == 1
    assert log.fatal_oom is None


@pytest.mark.slow
def test_accelerate_finds_a_batch_that_fits(opened, tmp_path):
    from accelerate.utils import find_executable_batch_size

    tried = []

    @find_executable_batch_size(starting_batch_size=16)
    def train(batch_size):
        tried.append(batch_size)
        torch.zeros(batch_size, MIB)

    with opened("48 MiB"):
        train()
    assert tried[0] == 16
    assert tried[-1] <= 12


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt()])
def test_other_errors_go_on_and_are_written_down(opened, tmp_path, error):
    with pytest.raises(type(error)), opened() as r, r.step(), r.phase("forward"):
        raise error
    log = read(tmp_path)
    assert log.outcome is (Outcome.ERROR if isinstance(error, ValueError) else Outcome.STOPPED)
    assert log.phases[-1].phase is Phase.FORWARD


def test_an_earlier_log_is_kept(opened, tmp_path):
    for _ in range(2):
        with opened():
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log-2.jsonl", "log.jsonl"]


def test_nothing_is_kept_alive(opened):
    with opened() as r, r.step(), r.phase("forward"):
        tensor = torch.zeros(MIB)
        reference = weakref.ref(tensor)
        del tensor
    assert reference() is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "tpu"}, "device tpu: unknown"),
        ({"gpu": "t44"}, "did you mean t4"),
        ({"budget": "14 Gigs"}, "not a size"),
        ({"budget": 0}, "not a size"),
        ({"budget": True}, "not a size"),
        ({"budget": "16 GiB", "gpu": "t4"}, r"16 GiB: Tesla T4 has 14\.56 GiB"),
        ({"budget": 2**34, "device": "simulated"}, r"16\.00 GiB: Tesla T4 has 14\.56 GiB"),
    ],
)
def test_values_that_cannot_be_used(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=words), Recorder.open(tmp_path / "log", **arguments):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    for path, words in ((tmp_path / "runs" / "log", "cannot make the folder"), ("", "the name of a log is needed")):
        with pytest.raises(ConfigError, match=words), Recorder.open(path, device="simulated"):
            pass


def test_a_peak_outside_of_steps_and_phases_is_not_missed(opened, tmp_path):
    """A loop that evaluates between its steps, and says nothing of it."""
    with opened() as r:
        kept = torch.zeros(MIB)
        for size in (2, 1, 3):
            with r.step(), r.phase("forward"):
                kept.sum()
            torch.zeros(MIB, size)
    phases = [(p.phase, p.step, p.after.peak_allocated_bytes // MIB) for p in read(tmp_path).phases]
    forward, outside = Phase.FORWARD, Phase.STEP
    assert phases == [(forward, 1, 4), (outside, 1, 12), (forward, 2, 4), (forward, 3, 4), (outside, 3, 16)]


def test_a_loop_that_names_nothing_has_a_peak(opened, tmp_path):
    with opened():
        torch.zeros(MIB)
    assert read(tmp_path).peak_allocated_bytes == 4 * MIB


def test_what_follows_a_phase_that_was_tried_again_is_seen(opened, tmp_path):
    with opened() as r, r.step():
        for error in (ValueError, None):
            with suppress(ValueError), r.phase("forward"):
                if error:
                    raise error
        torch.zeros(MIB)
    assert [p.phase for p in read(tmp_path).phases] == [Phase.FORWARD, Phase.FORWARD, Phase.STEP]


def test_steps_do_not_nest_and_end_with_the_recording(opened):
    with opened() as r:
        with pytest.raises(HarnessError, match="step 1 is still running"), r.step(), r.step():
            pass
        with pytest.raises(HarnessError, match="FORWARD is still running"), r.phase("forward"), r.step():
            pass
    with pytest.raises(HarnessError, match="the recording is over"), r.step():
        pass


def test_what_a_loop_says_of_a_step(opened, tmp_path):
    with opened() as r:
        with r.step() as step:
            step.loss = torch.tensor(2.5, requires_grad=True)
        with pytest.raises(HarnessError, match="learning_rate of a step: a number, not list"), r.step() as step:
            step.learning_rate = [1e-4]
        with r.step(torch.zeros(2, 0)):
            pass
    assert [s.loss for s in read(tmp_path).steps] == [2.5, None]


def test_phases_do_not_nest_and_have_known_names(opened):
    with opened() as r:
        with pytest.raises(ConfigError, match="did you mean forward"), r.phase("forwards"):
            pass
        with pytest.raises(HarnessError, match="EVAL is still running"), r.phase("eval"), r.phase("forward"):
            pass


IDS = torch.ones(2, 4, dtype=torch.int64)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        (None, None),
        (BatchShape(1, 2, (2,), 2), BatchShape(1, 2, (2,), 2)),
        (IDS, BatchShape(2, 4, (4, 4), 8)),
        (np.zeros((3, 5)), BatchShape(3, 5, (5, 5, 5), 15)),
        (torch.zeros(2, 3, 8, 8), BatchShape(2, 64, (64, 64), 128)),
        (torch.zeros(7), BatchShape(7, 1, (1,) * 7, 7)),
        ((IDS, torch.zeros(2)), BatchShape(2, 4, (4, 4), 8)),
        ({"input_ids": IDS, "attention_mask": MASK}, BatchShape(2, 4, (4, 2), 6)),
        ({"input_ids": IDS, "labels": torch.where(MASK.bool(), IDS, -100)}, BatchShape(2, 4, (4, 4), 6)),
        ({"x": torch.zeros(2, 4)}, BatchShape(2, 4, (4, 4), 8)),
        ("text", None),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1]], "labels": [[1, 2]]}, None),
        ({"pixels": IDS, "labels": [[1, 2]]}, BatchShape(2, 4, (4, 4), 8)),
        (torch.tensor(1.0), None),
    ],
)
def test_the_shape_of_a_batch(batch, shape):
    assert batch_shape(batch) == shape


def test_the_sizes_of_a_model_without_a_configuration():
    facts = model_facts(torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 50)))
    assert (facts.vocab_size, facts.hidden_size, facts.num_parameters) == (50, 8, 50 * 8 + 8 * 50 + 50)
    assert model_facts(torch.nn.Linear(8, 3)).vocab_size == 0


def test_a_log_that_is_cut_off_names_the_phase(opened, tmp_path):
    with opened() as r, r.step(), r.phase("backward"):
        assert read(tmp_path).last_phase is Phase.BACKWARD


def in_a_thread(start):
    """Call a function in a thread, by each of the usual ways, and wait for it."""

    def by_thread(work):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def by_pool(work):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work)

    return {"thread": by_thread, "pool": by_pool}[start]


@pytest.mark.parametrize("start", ["thread", "pool"])
def test_what_other_threads_allocate_counts(opened, tmp_path, start):
    kept = []
    with opened() as r, r.step():
        in_a_thread(start)(lambda: kept.append(torch.ones(100 * MIB // 4)))
    log = read(tmp_path)
    assert log.outcome is Outcome.COMPLETED
    assert 100 * MIB <= log.peak_allocated_bytes < 101 * MIB


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("start", ["thread", "pool"])
def test_a_thread_that_goes_beyond_the_budget_is_no_run_that_fits(opened, tmp_path, start):
    with opened("64 MiB") as r, r.step():
        in_a_thread(start)(lambda: torch.ones(100 * MIB // 4))
    log = read(tmp_path)
    assert log.ooms[-1].requested_bytes == 100 * MIB
    assert log.outcome is Outcome.OOM


def test_a_loop_that_asks_for_what_failed_in_a_pool_may_do_it_again(opened, tmp_path):
    with opened("64 MiB") as r, r.step(), ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(torch.ones, 100 * MIB // 4).result()
        except torch.OutOfMemoryError:
            pool.submit(torch.ones, 10 * MIB // 4).result()
    assert read(tmp_path).outcome is Outcome.COMPLETED


def test_a_thread_that_outlives_the_recording_runs_on(opened, tmp_path):
    goes_on, done = threading.Event(), []

    def work():
        goes_on.wait()
        with suppress(torch.OutOfMemoryError):
            torch.ones(100 * MIB // 4)
        done.append(True)

    with opened("64 MiB") as r, r.step():
        thread = threading.Thread(target=work)
        thread.start()
    goes_on.set()
    thread.join()
    assert done == [True]
    assert read(tmp_path).outcome is Outcome.COMPLETED


def test_an_out_of_memory_that_passes_prints_its_report_and_where_the_log_is(opened, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Recorder, "print_report", staticmethod(print_report))
    model, kept = torch.nn.Linear(512, 512), []

    def train(recorder):
        for _ in range(40):
            with recorder.step():
                model(torch.ones(64, 512)).sum().backward()
                kept.append(torch.zeros(200_000))

    with pytest.raises(torch.OutOfMemoryError), opened("24 MiB") as recorder:
        train(recorder)
    shown = capsys.readouterr().out
    assert shown.count("DOES NOT FIT") == 1
    assert shown.endswith(f"log: {tmp_path / 'log.jsonl'}\n")
    live = read(tmp_path).fatal_oom.live_bytes
    assert (live["parameter"], live["gradient"]) == (512 * 513 * 4,) * 2
    assert live["held_in_python"] >= 800_000 * len(kept)
    page = recorder._repr_html_()
    assert page is None or page.startswith("<iframe")


def test_an_error_that_passes_prints_nothing(opened, capsys, monkeypatch):
    monkeypatch.setattr(Recorder, "print_report", staticmethod(print_report))
    with pytest.raises(ZeroDivisionError), opened():
        print(1 / 0)
    assert capsys.readouterr().out == ""
