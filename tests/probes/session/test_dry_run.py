"""Scripts run dry by a function, and the settings that would let them fit."""

import pickle
import textwrap

import pytest
import torch

from memory_harness import dry_run
from memory_harness.configs.cards import find_card
from memory_harness.harness.log.errors import ConfigError, HarnessError
from memory_harness.harness.log.records import REQUEST, Outcome
from memory_harness.probes.session.dry_run import DryRun, try_settings
from memory_harness.reports.summary import result_of_log, verdict_banner

MIB = 2**20
LOOP = """
import torch
from torch.utils.data import DataLoader, TensorDataset

model = torch.nn.Sequential(torch.nn.Linear(256, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 8)).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = TensorDataset(torch.randn(4096, 256))
for (batch,) in DataLoader(data, batch_size=1024):
    loss = model(batch.cuda()).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a script."""

    def write(text):
        path = tmp_path / "train.py"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_it_says_what_the_script_takes_and_leaves_pytorch_alone(script):
    before = torch.Tensor.device, torch.cuda.is_available
    measured = dry_run(script(LOOP), gpu="t4", steps=2)
    assert measured.fits
    # the activations of the first layer and of the second's input, at least
    assert 2 * 1024 * 4096 * 4 < measured.peak_allocated_bytes < 100 * MIB
    assert (torch.Tensor.device, torch.cuda.is_available) == before


HALVES = """
import torch

first = torch.nn.Linear(1024, 1024).cuda(0)
second = torch.nn.Linear(1024, 8192).to("cuda:1")
optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
for _ in range(3):
    second(first(torch.ones(ROWS, 1024, device="cuda")).to("cuda:1")).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def test_a_script_that_uses_several_cards_by_hand_is_told_of_by_the_fullest(script):
    measured = dry_run(script(HALVES.replace("ROWS", "64")), gpu="t4", num_gpus=2)
    assert measured.fits
    assert measured.log.run.gpu_name == "Tesla T4, GPU 1 of 2"
    # weights and their gradients of both layers, beside workspaces
    for peak, rows in zip(measured.log.run.gpu_peaks, (1024, 8192), strict=True):
        assert 2 * 4 * 1024 * rows < peak < 2 * 4 * 1024 * rows + 40 * MIB
    assert measured.peak_allocated_bytes > 2 * 4 * 1024 * 8192


@pytest.mark.slow
def test_what_all_cards_would_take_is_told_where_memory_runs_out_on_one(script):
    measured = dry_run(script(HALVES.replace("ROWS", "4096")), gpu="t4", budget=150 * MIB, num_gpus=2)
    assert measured.log.outcome is Outcome.OOM
    assert measured.log.run.gpu_name == "Tesla T4, GPU 1 of 2"
    assert measured.log.run.gpu_peaks[0] < 150 * MIB < measured.log.run.gpu_peaks[1]


@pytest.mark.parametrize("number", [0, "2", True])
def test_a_number_of_gpus_that_is_none_is_one_line(number, script):
    with pytest.raises(ConfigError, match=r"num_gpus .*must be a whole number, 1 or more"):
        dry_run(script(HALVES), num_gpus=number)


@pytest.mark.slow
def test_a_setting_that_lets_it_fit_is_found(script, tmp_path):
    asked = DryRun(script(LOOP), (), find_card("t4"), 60 * MIB)
    recorded = asked.run(tmp_path / "as_written.jsonl")
    assert recorded.outcome is Outcome.OOM
    results = {result.name: result for result in try_settings(asked, recorded, tmp_path)}
    helpful = [name for name, result in results.items() if result.verified]
    assert len(helpful) == 1
    assert helpful[0].endswith("train.py:8: batch_size=1 instead of 1024")
    assert results[helpful[0]].after_peak_bytes < 60 * MIB < results[helpful[0]].before_peak_bytes


@pytest.mark.slow
def test_what_is_tried_is_said_and_the_scripts_output_is_not_repeated(script, tmp_path, capfd):
    asked = DryRun(script(LOOP + "\nprint('as written')\n"), (), find_card("t4"), 60 * MIB)
    recorded = asked.run(tmp_path / "as_written.jsonl")
    assert "OutOfMemoryError" in capfd.readouterr().err
    try_settings(asked, recorded, tmp_path)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line.partition(": trying ")[0] for line in printed.err.splitlines()] == ["dry run"] * 2


ROWS = """
import torch
from torch.utils.data import DataLoader

rows = [torch.ones(length, 64) for length in (3, 9, 1, 65536, 5)]
model = torch.nn.Linear(64, 64).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for batch in DataLoader(rows, batch_size=1):
    model(batch["rows"].cuda() if isinstance(batch, dict) else batch.cuda()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows", [ROWS, ROWS.replace("[torch.ones(length, 64) ", "[{'rows': torch.ones(length, 64)} ")])
def test_the_largest_batches_come_first_where_that_is_asked_for(script, tmp_path, rows):
    peaks = []
    for worst_first in (False, True):
        asked = DryRun(script(rows), (), find_card("t4"), 2**30, max_steps=2, worst_first=worst_first)
        peaks.append(asked.run(tmp_path / f"{worst_first}.jsonl").needed_bytes)
    whole = DryRun(script(rows), (), find_card("t4"), 2**30, max_steps=5).run(tmp_path / "whole.jsonl").needed_bytes
    assert peaks[0] < 0.5 * whole < 0.9 * peaks[1]


@pytest.mark.slow
def test_a_snapshot_holds_what_there_was_when_memory_ran_out(script, tmp_path):
    snapshot = tmp_path / "memory.pickle"
    asked = DryRun(script(LOOP), (), find_card("t4"), 60 * MIB, snapshot=snapshot)
    recorded = asked.run(tmp_path / "run.jsonl")
    segments = pickle.loads(snapshot.read_bytes())["segments"]
    assert sum(segment["allocated_size"] for segment in segments) == recorded.fatal_oom.allocated_bytes > 30 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("budget_bytes", [2**34, 60 * MIB])
def test_what_lived_at_the_peak_adds_up_to_it_by_line(script, tmp_path, budget_bytes):
    asked = DryRun(script(LOOP), (), find_card("t4"), budget_bytes, max_steps=2, with_peak=True)
    recorded = asked.run(tmp_path / "run.jsonl")
    assert sum(part.num_bytes for part in recorded.peak_parts) == recorded.needed_bytes
    line = next(number for number, text in enumerate(LOOP.splitlines(), 1) if "Sequential" in text)
    sites = {part.site: part.category for part in recorded.peak_parts}
    (made,) = [category for site, category in sites.items() if site.endswith(f"train.py:{line} <module>")]
    assert made == "made in LOAD"
    has_failed = any(part.category == REQUEST for part in recorded.peak_parts)
    assert has_failed == (recorded.outcome is Outcome.OOM)


@pytest.mark.slow
@pytest.mark.parametrize("replays_layers", [True, False])
def test_a_script_that_replayed_layers_do_not_bear_is_run_without(script, tmp_path, replays_layers):
    text = """
import torch
layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
model = torch.nn.TransformerEncoder(layer, 5).cuda()
for _ in range(4):
    loss = model(torch.ones(2, 16, 64, device="cuda")).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(gradient is not None for gradient in gradients)
print("done")
"""
    recorded = DryRun(script(text), (), find_card("t4"), 2**30, replays_layers=replays_layers).run(tmp_path / "a.jsonl")
    assert recorded.outcome is Outcome.COMPLETED


@pytest.mark.slow
def test_training_ends_when_nothing_new_comes(script, tmp_path):
    text = LOOP.replace("randn(4096, 256)", "randn(65536, 256)") + "\nprint('after the loop')\n"
    recorded = DryRun(script(text), (), find_card("t4"), 200 * MIB).run(tmp_path / "run.jsonl")
    assert recorded.outcome is Outcome.COMPLETED
    assert 10 < recorded.last_step < 64
    assert "no higher peak" in recorded.end.message


def test_what_cannot_be_known_names_the_line(script):
    text = LOOP + "\nif loss > 0.5:\n    print('high')\n"
    with pytest.raises(HarnessError, match=r"train\.py:14: "):
        dry_run(script(text), gpu="t4", steps=None)


def test_there_is_such_a_script_and_such_a_card(tmp_path, script):
    with pytest.raises(ConfigError, match="no such file"):
        dry_run(tmp_path / "none.py")
    with pytest.raises(ConfigError, match="t5"):
        dry_run(script(LOOP), gpu="t5")


def test_folders_and_files_that_were_there_stay(script, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.txt").write_text("mine", encoding="utf-8")
    text = f"""
import os, tempfile, torch
torch.zeros(8, device="cuda")
with tempfile.TemporaryFile(dir={str(folder)!r}) as file:
    file.write(b"1")
with tempfile.NamedTemporaryFile(dir={str(folder)!r}) as file:
    file.write(b"1")
made = tempfile.mkdtemp(dir={str(folder)!r})
open(os.path.join(made, "a"), "w").close()
open({str(folder / "rows.txt")!r}, "w").close()
os.close(os.open({str(folder)!r}, os.O_RDONLY))
"""
    assert dry_run(script(text)).fits
    assert [path.name for path in folder.iterdir()] == ["rows.txt"]
    assert (folder / "rows.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.slow
def test_a_thread_runs_on_the_card_too(script):
    text = f"import threading\n\ndef train():\n{textwrap.indent(LOOP, '    ')}\n"
    text += "thread = threading.Thread(target=train)\nthread.start()\nthread.join()\n"
    assert dry_run(script(text)).peak_allocated_bytes > 2 * 1024 * 4096 * 4


def test_a_process_that_fails_is_not_passed_over(script):
    text = "import multiprocessing, torch\ntorch.zeros(8, device='cuda')\n"
    text += (
        "process = multiprocessing.get_context('fork').Process(target=lambda: 1 / 0)\nprocess.start()\nprocess.join()"
    )
    with pytest.raises(HarnessError, match=r"train\.py:5: the process .* ended with 1"):
        dry_run(script(text))


def test_a_script_without_a_card_is_not_decided(script):
    assert not dry_run(script("print('no card')")).fits


@pytest.mark.slow
def test_a_bare_except_does_not_keep_a_run_from_ending(script):
    text = (
        LOOP.split("data =")[0]
        + """
step = 0
while step < 10**6:
    try:
        model(torch.randn(4, 256, device="cuda")).sum().backward()
        optimizer.step()
        step += 1
    except:
        continue
"""
    )
    measured = dry_run(script(text))
    assert "no higher peak" in measured.log.end.message
    banner = verdict_banner(result_of_log(measured.log))
    assert banner.title == "FITS SO FAR"


@pytest.mark.slow
def test_what_the_script_reads_of_its_peaks_is_its_own(script):
    text = (
        LOOP.split("data =")[0]
        + """
peaks = []
for _ in range(3):
    model(torch.randn(1024, 256, device="cuda")).sum().backward()
    optimizer.step()
    peaks.append(torch.cuda.max_memory_allocated())
assert peaks == sorted(peaks) and peaks[0] > 16 * 2**20, peaks
torch.cuda.reset_peak_memory_stats()
assert torch.cuda.max_memory_allocated() < peaks[0]
"""
    )
    assert dry_run(script(text)).peak_allocated_bytes > 16 * MIB


def test_there_is_one_card(script):
    measured = dry_run(script("import torch\ntorch.zeros(8, device='cuda:0')\ntorch.zeros(8).to('cuda:1')\n"))
    assert not measured.fits
    assert "invalid device ordinal" in measured.log.end.message
