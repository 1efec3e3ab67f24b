"""`run_probe.py --dry-run SCRIPT --num-gpus 2`: scripts that torchrun or accelerate would start on several GPUs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from socket import socket

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import Outcome, StepRecord
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.harness.observe.run_script import run_script
from memory_harness.harness.observe.script import ScriptObserver
from memory_harness.harness.simulate.fsdp import gathered_weights_are_traced
from memory_harness.probes.detectors import detect
from memory_harness.reports import entry

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "dry"
CARD = "t4"
LONGEST_SECONDS = 60
"""for which processes may wait for each other"""


def dry_run(script: str, folder: Path, *arguments: str, flags: Sequence[str] = ("--num-gpus", "2")) -> int:
    options = ("--gpu", CARD, "--output", str(folder / "runs"), "--no-fixes", *flags)
    return entry.main(["--dry-run", str(SCRIPTS / f"{script}.py"), *options, "--", *arguments])


def log_in(folder: Path) -> RunLog:
    (log,) = (folder / "runs").glob("*/as_configured.jsonl")
    return read_run_log(log)


@pytest.mark.parametrize(
    ("script", "arguments", "on_host_bytes"),
    [
        # the data set, which a DataLoader keeps on the host
        pytest.param("ddp_loop", (), 40 * 256 * 4, id="ddp"),
        pytest.param("ddp_loop", ("--bucket-view",), 40 * 256 * 4, id="gradients in buckets", marks=pytest.mark.slow),
        pytest.param("fsdp2_loop", (), 0, id="fsdp2", marks=pytest.mark.slow),
    ],
)
def test_what_stays_between_steps_is_what_two_processes_keep_that_do_talk(
    script, arguments, on_host_bytes, tmp_path, monkeypatch
):
    """Two processes run the script for real on the CPU, joined by gloo; all their tensors count as a card's there."""
    monkeypatch.chdir(tmp_path)
    assert dry_run(script, tmp_path, *arguments) == 0
    dry = log_in(tmp_path)
    assert (dry.outcome, dry.run.num_ranks) == (Outcome.COMPLETED, 2)
    real = steps_of_first(SCRIPTS / f"{script}.py", arguments, tmp_path / "real.jsonl")
    assert len(dry.steps) == len(real) > 0
    for ours, theirs in zip(dry.steps, real, strict=True):
        assert abs(ours.allocated_bytes - theirs.allocated_bytes) <= on_host_bytes + 8 * 1024


def steps_of_first(script: Path, arguments: Sequence[str], log: Path) -> list[StepRecord]:
    """Return the steps of the first of two processes whose CPU tensors lie on the simulated card."""
    with closing(socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = []
    for rank in range(2):
        where = log if rank == 0 else log.with_suffix(".other")
        processes.append(fork.Process(target=run_as_rank, args=(rank, port, script, arguments, where)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(LONGEST_SECONDS)
        process.kill()
    return read_run_log(log).steps


def run_as_rank(rank: int, port: int, script: Path, arguments: Sequence[str], log: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)  # those of the process that was forked are not here, and would be waited for
    card = find_card(CARD)
    device = SimulatedDevice(card, card.budget_bytes, computes=True, adopts=True)
    with (
        LogWriter(log) as writer,
        gathered_weights_are_traced(device.tracer),
        ScriptObserver(device, writer.write, script.name).running(),
    ):
        _ = run_script(str(script), arguments)
        os._exit(0)  # all that is asked for is in the log; gloo's threads need not be waited for


@pytest.mark.slow
@pytest.mark.parametrize("script", ["accelerate_loop", "trainer_full", "trainer_lora", "trl_sft"])
def test_ddp_of_libraries_keeps_a_copy_of_the_gradients_beside_what_one_gpu_takes(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dry_run(script, tmp_path / "two") == dry_run(script, tmp_path / "one", flags=()) == 0
    one, two = log_in(tmp_path / "one"), log_in(tmp_path / "two")
    trained_bytes = two.run.model.gradient_bucket_bytes
    assert trained_bytes in (2 * two.run.model.num_trainable_parameters, 4 * two.run.model.num_trainable_parameters)
    assert min(trained_bytes, len(two.steps)) > 0
    for ours, alone in zip(two.steps, one.steps, strict=False):
        assert abs(ours.allocated_bytes - alone.allocated_bytes - trained_bytes) <= 16 * 1024


@pytest.mark.parametrize(
    ("script", "line", "why"),
    [
        ("data_parallel", 5, "torch.nn.DataParallel"),
        pytest.param("fsdp1", 6, "FullyShardedDataParallel", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_followed_on_several_gpus_is_one_line(script, line, why, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert dry_run(f"refused/{script}", tmp_path) == 2
    (refusal,) = [text for text in capfd.readouterr().err.splitlines() if text.startswith("run_probe.py: ")]
    assert f"refused/{script}.py:{line}: " in refusal
    assert why in refusal


@pytest.mark.parametrize(
    ("arguments", "fullest"),
    [
        ((), 1),
        pytest.param(("--trainer",), 1, marks=pytest.mark.slow),
        pytest.param(("--device-map", "balanced"), 1, marks=pytest.mark.slow),
        pytest.param(("--max-memory", '{"0": "1GB", "1": "1GB"}'), 1, marks=pytest.mark.slow),
        pytest.param(
            ("--device-map", "sequential", "--max-memory", '{"0": "130KB", "1": "1GB"}'), 1, marks=pytest.mark.slow
        ),
        pytest.param(("--device-map", "balanced_low_0"), 1, marks=pytest.mark.slow),
        pytest.param(("--device-map", '{"model": 0, "lm_head": 1}'), 0, marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_model_over_all_gpus_is_told_of_by_the_fullest(arguments, fullest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dry_run("split_lora", tmp_path, "--length", "512", *arguments) == 0
    log = log_in(tmp_path)
    peaks = log.run.gpu_peaks
    assert (len(log.steps), log.run.num_ranks, len(peaks)) == (4, 1, 2)
    assert peaks.index(max(peaks)) == fullest
    assert log.run.gpu_name == f"Tesla T4, GPU {fullest} of 2"
    assert log.peak_reserved_bytes == max(peaks)
    assert log.run.budget_bytes == find_card(CARD).budget_bytes  # nobody talks


@pytest.mark.slow
def test_layers_that_fill_one_gpu_beside_an_empty_one_are_told_with_what_to_move(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = ("split_lora", tmp_path, "--device-map", "sequential", "--hidden", "8192", "--length", "512")
    assert dry_run(*script) == 0
    whole = log_in(tmp_path)
    full, empty = whole.run.gpu_peaks
    assert empty < full // 10
    budget = ("--num-gpus", "2", "--budget", str(whole.peak_allocated_bytes - 10 * 2**20))
    assert dry_run(script[0], tmp_path / "tight", *script[2:], flags=budget) == 1
    tight = log_in(tmp_path / "tight")
    assert tight.outcome is Outcome.OOM
    assert tight.run.gpu_peaks == (full, empty)  # with as much memory as they want
    found = {finding.cause: finding for finding in detect(tight)}
    assert found["device-map-imbalance"].severity == "error"


MODEL = "model = torch.nn.Linear(512, 512)"
STEP = """
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    model(torch.randn(4, 512, device=next(model.parameters()).device)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
START = "import os, torch\nrank = int(os.environ['LOCAL_RANK'])"
JOIN = "torch.distributed.init_process_group('nccl')"
MESH = "torch.distributed.device_mesh.init_device_mesh('cuda', (2,))"


def ranks_on_first_gpu(folder, monkeypatch, *lines):
    """Return the exit code and the log of a script of these lines, run dry for two GPUs."""
    monkeypatch.chdir(folder)
    script = folder / "script.py"
    script.write_text("\n".join((START, *lines)) + STEP)
    flags = ("--gpu", CARD, "--output", str(folder / "runs"), "--no-fixes", "--num-gpus", "2")
    return entry.main(["--dry-run", str(script), *flags]), log_in(folder)


@pytest.mark.parametrize(
    "lines",
    [
        (JOIN, MODEL, "model.to('cuda:0')"),
        (JOIN, MODEL, "model.cuda()"),
        (JOIN, "torch.cuda.set_device(0)", MODEL, "model.cuda()"),
        ("torch.distributed.init_process_group()", MODEL, "model.to(0)"),
    ],
    ids=["cuda:0", "the present card", "set_device", "an index"],
)
def test_ranks_that_all_use_the_first_gpu_are_not_said_to_fit(lines, tmp_path, monkeypatch):
    code, log = ranks_on_first_gpu(tmp_path, monkeypatch, *lines)
    assert (code, log.run.ranks_on_gpu) == (3, 2)
    assert log.outcome is Outcome.ERROR
    assert "NCCL" in log.end.message
    assert "ranks-on-one-gpu" in {finding.cause for finding in detect(log)}


def test_ranks_that_share_a_gpu_out_and_talk_by_gloo_have_a_part_of_it_each(tmp_path, monkeypatch):
    join = "torch.distributed.init_process_group('gloo')"
    code, log = ranks_on_first_gpu(tmp_path, monkeypatch, join, MODEL, "model.to('cuda:0')")
    assert (code, log.run.ranks_on_gpu, log.outcome) == (0, 2, Outcome.COMPLETED)
    assert log.run.budget_bytes < find_card(CARD).budget_bytes / 2
    big = ("keeps = torch.empty(8 * 2**30, dtype=torch.uint8, device='cuda:0')", MODEL, "model.to('cuda:0')")
    (tmp_path / "big").mkdir()
    code, log = ranks_on_first_gpu(tmp_path / "big", monkeypatch, join, *big)
    assert (code, log.outcome) == (1, Outcome.OOM)


@pytest.mark.parametrize(
    "lines",
    [
        (JOIN, MODEL, "model.to(f'cuda:{rank}')"),
        (JOIN, "torch.cuda.set_device(rank)", MODEL, "model.cuda()"),
        ("os.environ['CUDA_VISIBLE_DEVICES'] = str(rank)", JOIN, MODEL, "model.to('cuda:0')"),
        (MESH, MODEL, "model.cuda()"),
        (MESH, MODEL, "torch.distributed.fsdp.fully_shard(model)"),
    ],
    ids=["its number", "set_device", "the only one that it sees", "a mesh chooses", "fully_shard"],
)
def test_ranks_that_have_a_gpu_each_are_left_alone(lines, tmp_path, monkeypatch):
    code, log = ranks_on_first_gpu(tmp_path, monkeypatch, *lines)
    assert (code, log.run.ranks_on_gpu, log.outcome) == (0, 1, Outcome.COMPLETED)
    assert "ranks-on-one-gpu" not in {finding.cause for finding in detect(log)}


def test_a_script_that_joins_nobody_is_said_to_run_by_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dry_run("convnet", tmp_path) == 0
    (alone,) = [stand_in.what for stand_in in log_in(tmp_path).stand_ins if "joins" in stand_in.what]
    assert "each of 2 would train by itself" in alone
    assert log_in(tmp_path).run.budget_bytes == find_card(CARD).budget_bytes  # nobody talks


@pytest.mark.parametrize("is_view", [False, True], ids=["a second copy", "gradients lie in the buckets"])
def test_buckets_that_are_a_second_copy_of_the_gradients_are_told_with_what_saves_them(is_view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("--bucket-view",) if is_view else ()
    assert dry_run("ddp_loop", tmp_path, *arguments, flags=("--num-gpus", "2", "--budget", "100 MiB")) == 0
    found = {finding.cause: finding for finding in detect(log_in(tmp_path))}
    assert ("communication-buffers" in found) is not is_view
    if not is_view:
        assert found["communication-buffers"].bytes == 4 * 6 * (2 * 256 * 512 + 256 + 512)
        assert "gradient_as_bucket_view=True" in found["communication-buffers"].explanation
