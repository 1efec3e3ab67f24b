"""Scripts of plain PyTorch, run unmodified under `--watch`: cause and line of each mistake, and none without one."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.log.runlog import RunLog, read_run_log
from memory_harness.probes.detectors import detect
from memory_harness.probes.detectors.peaks import length_limit
from memory_harness.probes.session.watch import watch_script
from memory_harness.reports.summary import exit_code, result_of_log, verdict_banner, verdict_of, verdict_sentence

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "tests" / "watch_scripts"
MISTAKE = "# the mistake"

CAUSES = {
    "adapters_compared": "adapters-accumulate",
    "adapters_of_peft": "adapters-accumulate",
    "autocast_around_fits": "autocast-cache",
    "autocast_cache": "autocast-cache",
    "averaged_weights_saved": "save-doubles",
    "baseline_with_graph": "retained-graph",
    "best_weights_by_epoch": "tensors-logged",
    "branches_added": "adapters-accumulate",
    "by_hand_leak": "retained-graph",
    "by_hand_replaced": "tensors-logged",
    "cache_by_layer": "kv-cache-held",
    "cached_batches": "tensors-logged",
    "cached_function": "tensors-logged",
    "cast_by_a_library": "kbit-upcast",
    "centre_with_graph": "retained-graph",
    "chat_cache": "kv-cache-held",
    "checkpoint_in_attribute": "resume-on-gpu",
    "checkpointing_disabled": "checkpointing-lost",
    "checkpointing_off_in_generate": "checkpointing-lost",
    "clips_on_a_canvas": "padding-to-max",
    "closure_names_itself": "reference-cycle",
    "decoder_cache_kept": "kv-cache-held",
    "epoch_hoard": "epoch-hoard",
    "errors_in_accumulation": "exception-holds-frames",
    "errors_kept": "exception-holds-frames",
    "errors_of_a_pool": "exception-holds-frames",
    "errors_of_evaluation": "exception-holds-frames",
    "errors_on_a_queue": "exception-holds-frames",
    "errors_with_their_tracebacks": "exception-holds-frames",
    "eval_batch_logits": "eval-batch-logits",
    "eval_leftover": "eval-leftover",
    "eval_with_grad": "eval-with-grad",
    "evaluation_waits": "eval-leftover",
    "exception_holds_frames": "exception-holds-frames",
    "failure_kept": "exception-holds-frames",
    "group_logits": "group-logits",
    "full_after_few_steps": "tensors-logged",
    "graphs_fill_few_steps": "retained-graph",
    "growing_tensor": "tensors-logged",
    "history_of_lbfgs": "optimizer-lazy",
    "hook_closes_over": "hook-holds-activations",
    "hook_fills_a_global": "hook-holds-activations",
    "hook_holds_activations": "hook-holds-activations",
    "hooks_registered_again": "hook-holds-activations",
    "host_arrays": "host-leak",
    "host_rows": "host-leak",
    "kv_cache_held": "kv-cache-held",
    "layers_no_longer_checkpointed": "checkpointing-lost",
    "layers_wrapped": "adapters-accumulate",
    "lazy_layers_in_a_circle": "reference-cycle",
    "log_probs_kept": "retained-graph",
    "logits_beside_labels": "logits-hoarded",
    "logits_concatenated": "logits-hoarded",
    "logits_hoarded": "logits-hoarded",
    "logits_of_trainer": "logits-hoarded",
    "logits_of_trainer_on_the_host": "logits-hoarded-host",
    "logits_padded": "logits-hoarded",
    "longest_after_few_steps": "longest-sample",
    "longest_of_sorted": "longest-sample",
    "longest_recording": "longest-sample",
    "longest_sample": "longest-sample",
    "made_by_a_comprehension": "retained-graph",
    "metric_cat_state": "metric-never-reset",
    "metric_concatenated": "metric-never-reset",
    "metric_list_state": "metric-never-reset",
    "metric_never_reset": "metric-never-reset",
    "metric_of_training": "metric-never-reset",
    "models_copied": "tensors-logged",
    "nodes_know_their_parents": "reference-cycle",
    "observations_by_episode": "host-leak",
    "old_model_alive": "old-model-alive",
    "one_hot_labels": "logits-fp32-copies",
    "oom_in_backward": "oom-in-backward",
    "no_room_for_states": "model-states-exceed-budget",
    "outputs_hoarded": "outputs-hoarded",
    "outputs_of_generate": "kv-cache-held",
    "padded_to_the_maximum": "padding-to-max",
    "pictures_kept": "tensors-logged",
    "prefixes_kept": "kv-cache-held",
    "pretraining_kept": "old-model-alive",
    "recompile_per_shape": "recompile-per-shape",
    "records_of_arrays": "host-leak",
    "reference_cycle": "reference-cycle",
    "replay_with_graphs": "retained-graph",
    "results_of_a_pool": "tensors-logged",
    "resume_on_gpu": "resume-on-gpu",
    "retain_graph_flag": "retained-graph",
    "retained_graph": "retained-graph",
    "returns_kept": "retained-graph",
    "rnn_state": "retained-graph",
    "rollout_caches": "kv-cache-held",
    "rollouts_kept": "rollouts-kept",
    "sample_output_kept": "tensors-logged",
    "samples_decoded": "host-leak",
    "save_doubles": "save-doubles",
    "scores_by_hand": "attention-math-fallback",
    "second_order_clones": "retained-graph",
    "second_order_cycle": "retained-graph",
    "second_order_momentum": "retained-graph",
    "second_order_penalty": "retained-graph",
    "several_appends": "tensors-logged",
    "shifted_logits": "logits-fp32-copies",
    "slow_graph": "retained-graph",
    "slow_growth": "tensors-logged",
    "state_without_optimizer_steps": "retained-graph",
    "states_of_the_vocabulary": "optimizer-lazy",
    "streaming_cache": "kv-cache-held",
    "streams_left_open": "kv-cache-held",
    "tensors_logged": "tensors-logged",
    "thread_leak": "tensors-logged",
    "thread_pool_leak": "tensors-logged",
    "tied_scores": "logits-fp32-copies",
    "tiles_tried_in_except": "exception-holds-frames",
    "torchmetrics_of_evaluation": "metric-never-reset",
    "torchmetrics_state": "metric-never-reset",
    "train_forgotten": "checkpointing-lost",
    "two_functions_append": "tensors-logged",
    "two_lists": "tensors-logged",
    "weights_cloned": "tensors-logged",
    "weights_kept": "tensors-logged",
    "weights_of_heads": "attention-math-fallback",
}
TOLD_BY_THE_PROCESS = {"observations_by_episode", "records_of_arrays"}
"""Whether they grow without end shows in resident memory, which in a process that ran other tests takes freed memory
first."""
ALONE = {"logits_of_trainer_on_the_host"}
"""What resident memory alone tells, watched in a process of its own for the same reason."""
GROW_WITHOUT_END = {
    "baseline_with_graph", "best_weights_by_epoch", "cache_by_layer", "cached_batches", "cached_function", "chat_cache",
    "errors_in_accumulation", "errors_kept", "errors_of_evaluation", "errors_on_a_queue", "failure_kept",
    "growing_tensor", "hook_holds_activations", "kv_cache_held", "log_probs_kept", "metric_cat_state",
    "metric_concatenated", "metric_list_state", "metric_never_reset", "metric_of_training", "models_copied",
    "outputs_hoarded", "outputs_of_generate", "pictures_kept", "replay_with_graphs", "retain_graph_flag",
    "retained_graph", "returns_kept", "rnn_state", "rollout_caches", "rollouts_kept", "second_order_clones",
    "second_order_cycle", "second_order_momentum", "second_order_penalty", "several_appends", "slow_graph",
    "slow_growth", "streaming_cache", "tensors_logged", "torchmetrics_of_evaluation", "torchmetrics_state",
    "two_functions_append", "by_hand_leak", "by_hand_replaced", "thread_leak", "thread_pool_leak", "two_lists",
    "host_arrays", "host_rows", "sample_output_kept", "samples_decoded", "hooks_registered_again",
    "errors_with_their_tracebacks", "hook_fills_a_global",
    "adapters_compared", "adapters_of_peft",
    "state_without_optimizer_steps", "centre_with_graph", "errors_of_a_pool", "results_of_a_pool", "prefixes_kept",
    "records_of_arrays", "made_by_a_comprehension",
    "weights_cloned", "weights_kept", "decoder_cache_kept", "hook_closes_over", "streams_left_open",
}  # fmt: skip
BUDGETS = {
    "batches_skipped": 26 * MIB, "clean_batch_size_search": 26 * MIB, "clean_batches_halved": 48 * MIB,
    "evaluation_skipped": 26 * MIB, "search_given_up": 26 * MIB, "trial_function_fails": 26 * MIB,
    "eval_batch_logits": 9 * MIB, "exception_holds_frames": 24 * MIB, "failure_kept": 40 * MIB,
    "layers_no_longer_checkpointed": 10 * MIB, "padded_to_the_maximum": 4 * MIB,
    "group_logits": 20 * MIB, "longest_sample": 40 * MIB, "oom_in_backward": 48 * MIB, "shifted_logits": 18 * MIB,
    "cast_by_a_library": 5 * MIB, "clips_on_a_canvas": 5 * MIB, "history_of_lbfgs": 8 * MIB,
    "longest_after_few_steps": 8 * MIB, "longest_recording": 8 * MIB,
    "averaged_weights_saved": 5 * MIB, "clean_evaluation_ends": 22 * MIB, "clean_tiles_tried_after": 6 * MIB,
    "evaluation_waits": 22 * MIB, "longest_of_sorted": 8 * MIB, "tiles_tried_in_except": 6 * MIB,
    "weights_of_heads": 15 * MIB, "one_hot_labels": 12 * MIB, "pretraining_kept": 16 * MIB,
    "full_after_few_steps": 40 * MIB, "graphs_fill_few_steps": 14 * MIB,
    "no_room_for_states": 16 * MIB, "clean_window_in_little_room": 60 * MIB,
    "scores_by_hand": 9 * MIB, "states_of_the_vocabulary": 16 * MIB, "tied_scores": 16 * MIB,
}  # fmt: skip
ALWAYS = {
    "batches_skipped", "checkpointing_off_in_generate", "retained_graph", "tensors_logged",
    "full_after_few_steps",
}  # fmt: skip
"""Of each kind of mistake some; the others with `-m slow`."""
GIVES_UP = {"batches_skipped": 2, "evaluation_skipped": 8, "search_given_up": 4, "trial_function_fails": 3}
"""scripts that go on, or die, without work that found no memory, with how often it found none"""
OF_PROCESSES = {
    "clean_processes", "forked_leak", "leaves_at_once", "rank_gathers_state", "rank_imbalance", "subprocess_leak",
}  # fmt: skip
"""what is run by the command line, as these start processes or leave their own"""
CAUGHT = "# caught here"
CLEAN = sorted({path.stem for path in SCRIPTS.glob("clean_*.py")} - OF_PROCESSES)
CLEAN_ALWAYS = {
    "clean_accumulation", "clean_evaluation", "clean_varying_lengths",
}  # fmt: skip
"""the rest with `-m slow`"""


def watched(script: Path, folder: Path, budget_bytes: int | None = None, arguments: tuple[str, ...] = ()) -> RunLog:
    log = folder / "as_configured.jsonl"
    return watch_script(str(script), arguments, log, device="simulated", gpu=None, budget_bytes=budget_bytes)


def watched_alone(script: Path, folder: Path, budget_bytes: int | None = None) -> RunLog:
    assert budget_bytes is None
    command = [sys.executable, str(ROOT / "run_probe.py"), "--device", "simulated", "--output", str(folder)]
    subprocess.run([*command, "--watch", str(script)], capture_output=True, check=False)
    (log,) = folder.glob("*/as_configured.jsonl")
    return read_run_log(log)


def line_of_mistake(name: str, mark: str = MISTAKE) -> str:
    """Return `file:line` of the marked line, in the script or in its helper modules, as findings show it."""
    for path in (SCRIPTS / f"{name}.py", SCRIPTS / "helpers" / "metrics.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if mark in line:
                return f"{path.relative_to(SCRIPTS.parent.parent).as_posix()}:{number}"
    raise AssertionError(f"no line of {name} is marked")


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in CAUSES]
)
def test_the_cause_and_the_line(name, tmp_path, capfd):
    watch = watched_alone if name in ALONE else watched
    log = watch(SCRIPTS / f"{name}.py", tmp_path, BUDGETS.get(name))
    findings = [finding for finding in detect(log) if finding.severity != "info"]
    assert (findings[0].cause, findings[0].where) == (CAUSES[name], line_of_mistake(name))
    if name not in TOLD_BY_THE_PROCESS:
        assert (findings[0].severity == "error") is (name in GROW_WITHOUT_END or log.outcome is Outcome.OOM)
    assert {f.cause for f in findings} <= {CAUSES[name], "fragmentation"}


@pytest.mark.parametrize(
    "name", [name if name in CLEAN_ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in CLEAN]
)
def test_no_finding_without_a_mistake(name, tmp_path, capfd):
    log = watched(SCRIPTS / f"{name}.py", tmp_path, BUDGETS.get(name))
    assert log.outcome is Outcome.COMPLETED
    assert verdict_of(log, None) == "pass"
    assert [f"{f.severity} {f.cause}" for f in detect(log) if f.severity != "info"] == []


@pytest.mark.slow
def test_summed_losses_cost_the_host_alone(tmp_path, capfd):
    gc.collect()  # sums of scripts that were watched before
    log = watched(SCRIPTS / "clean_summed_losses.py", tmp_path)
    (finding,) = [finding for finding in detect(log) if finding.cause == "host-leak"]
    assert finding.severity == "info"
    assert "global `total`" in finding.explanation
    assert str(finding.where).endswith("clean_summed_losses.py:15")


@pytest.mark.slow
def test_what_keeps_it_is_shown_with_both_lines(tmp_path, capfd):
    text = (
        "import torch\n"
        "model = torch.nn.Linear(16, 128)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "history = []\n"
        "for step in range(14):\n"
        "    out = model(torch.randn(32, 16))\n"
        "    optimizer.zero_grad()\n"
        "    out.mean().backward()\n"
        "    optimizer.step()\n"
        "    history.append(step)\n"
        "    history.append(out.detach())\n"
    )
    (finding,) = detect(watched(script_of(tmp_path, text), tmp_path))
    assert str(finding.where).endswith("script.py:11")
    assert "script.py:6 <module> `out = model(torch.randn(32, 16))`" in finding.explanation
    assert "global `history`" in finding.explanation
    assert "`history.append(out.detach())`" in finding.explanation


@pytest.mark.slow
def test_a_notebooks_leak_is_told_by_cell_and_line(tmp_path, capfd):
    cells = [
        "import torch\nmodel = torch.nn.Linear(16, 128)\nhistory = []",
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "for step in range(14):\n"
        "    out = model(torch.randn(32, 16))\n"
        "    optimizer.zero_grad()\n"
        "    out.mean().backward()\n"
        "    optimizer.step()\n"
        "    history.append(out.detach())",
    ]
    notebook = {"cells": [{"cell_type": "code", "source": source.splitlines(True)} for source in cells]}
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    (finding,) = detect(watched(path, tmp_path))
    assert finding.cause == "tensors-logged"
    assert str(finding.where).endswith("train.ipynb#cell2:7")


def test_at_least_fourteen_causes_and_eight_clean_scripts():
    assert len(set(CAUSES.values())) >= 14
    assert len(CLEAN) >= 8
    assert {path.stem for path in SCRIPTS.glob("*.py")} == {*CAUSES, *CLEAN, *GIVES_UP, *OF_PROCESSES}


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in GIVES_UP]
)
def test_a_script_that_goes_on_without_what_found_no_memory_does_not_fit(name, tmp_path, capfd):
    log = watched(SCRIPTS / f"{name}.py", tmp_path, BUDGETS[name])
    result = result_of_log(log)
    assert (verdict_banner(result).title, exit_code(result)) == ("DOES NOT FIT", 1)
    assert f"{GIVES_UP[name]} allocations failed" in verdict_sentence(result)
    assert {oom.caught_at for oom in log.given_up} == {line_of_mistake(name, CAUGHT)}


@pytest.mark.slow
def test_larger_tries_of_a_script_that_fits_are_counted(tmp_path, capfd):
    log = watched(SCRIPTS / "clean_batch_size_search.py", tmp_path, BUDGETS["clean_batch_size_search"])
    assert "2 tries before had asked for more than there is" in verdict_sentence(result_of_log(log))
    assert [is_done for _, is_done in log.caught_ooms] == [True, True]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "raise ValueError('layer 3 has 64 columns\\nnot 128\\nsee https://example.org/docs.')",
            "layer 3 has 64 columns.",
        ),
        (
            "raise RuntimeError('Error(s) in loading state_dict for Net:\\n\\tsize mismatch for a')",
            "Net: size mismatch for a.",
        ),
        ("raise RuntimeError('\\n  no such table')", "RuntimeError: no such table."),
    ],
)
def test_the_verdict_tells_the_first_line_of_an_error(text, sentence, tmp_path, capfd):
    assert verdict_sentence(result_of_log(watched(script_of(tmp_path, text), tmp_path))).endswith(sentence)


def test_without_a_gpu_the_largest_data_is_named(tmp_path):
    script = script_of(tmp_path, TRAINING.replace("for step in", "data = torch.randn(2**18)\nfor step in"))
    run = watched(script, tmp_path).run
    assert run.data_bytes == 2**20
    assert run.data_where.endswith("script.py:7")


TRAINING = """
import sys, io, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(3):
    for micro in range(2):
        model(torch.randn(4, 8)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(2, 8))
    model.train()
torch.save(model.state_dict(), io.BytesIO())
"""


def script_of(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_phases_steps_and_batches_are_inferred(tmp_path):
    log = watched(script_of(tmp_path, TRAINING), tmp_path)
    step = ["DATA", "FORWARD", "BACKWARD", "FORWARD", "BACKWARD", "OPTIMIZER", "EVAL", "EVAL"]
    assert [str(p.phase) for p in log.phases] == ["LOAD", *step[1:], *step[1:], *step[1:], "CHECKPOINT"]
    assert [(s.step, s.micro_steps, s.learning_rate) for s in log.steps] == [(1, 2, 0.1), (2, 2, 0.1), (3, 2, 0.1)]
    assert [(p.step, p.index) for p in log.phases if p.phase is Phase.EVAL] == [
        (s, i) for s in (1, 2, 3) for i in (0, 1)
    ]
    assert {p.batch.batch_size for p in log.phases if p.phase is Phase.EVAL and p.batch} == {2}
    assert log.run.total_steps == 3


def test_watching_changes_nothing(tmp_path, capfd):
    script = script_of(tmp_path, TRAINING + "print(sum(p.sum().item() for p in model.parameters()))")
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "__main__"})
    before = capfd.readouterr().out
    names = ((torch.nn.Module, "__call__"), (torch.autograd, "backward"), (torch, "save"), (torch.Tensor, "cpu"))
    functions = [getattr(owner, name) for owner, name in names]
    watched(script, tmp_path)
    assert capfd.readouterr().out == before
    assert [getattr(owner, name) for owner, name in names] == functions


def test_the_budget_raises_an_error_that_the_script_catches(tmp_path, capfd):
    script = script_of(
        tmp_path,
        "import torch\n"
        "try:\n"
        "    torch.zeros(64, 2**20)\n"
        "except torch.OutOfMemoryError as error:\n"
        "    print(str(error).startswith('CUDA out of memory. Tried to allocate 256.00 MiB'))\n",
    )
    log = watched(script, tmp_path, 64 * MIB)
    assert capfd.readouterr().out == "True\n"
    assert log.outcome is Outcome.COMPLETED
    assert [oom.requested_bytes for oom in log.ooms] == [256 * MIB]
    assert str(log.ooms[0].where).endswith("script.py:3")


def test_a_model_that_is_trained_in_evaluation_mode_is_no_evaluation(tmp_path):
    text = TRAINING.replace("for step in", "model.eval()\nfor step in").replace("    model.train()\n", "")
    log = watched(script_of(tmp_path, text), tmp_path)
    assert "eval-with-grad" not in {finding.cause for finding in detect(log)}
    assert [p.phase for p in log.phases].count(Phase.FORWARD) >= 5


def test_parameters_updated_by_hand_make_steps(tmp_path):
    text = (
        "import torch\n"
        "w = torch.zeros(8, 2, requires_grad=True)\n"
        "for _ in range(5):\n"
        "    (torch.randn(4, 8) @ w).pow(2).sum().backward()\n"
        "    with torch.no_grad():\n"
        "        w -= 0.1 * w.grad\n"
        "    w.grad = None\n"
    )
    log = watched(script_of(tmp_path, text), tmp_path)
    assert [p.phase for p in log.phases].count(Phase.BACKWARD) >= 1
    assert log.outcome is Outcome.COMPLETED


@pytest.mark.slow
def test_what_fits_is_told_where_the_padding_is_not_looked_at(tmp_path):
    text = (
        "import torch\n"
        "model = torch.nn.Sequential(torch.nn.Embedding(50, 64), torch.nn.Linear(64, 64))\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "for length in (100, 300, 150, 200, 250, 400, 350):\n"
        "    model(torch.zeros(4, length, dtype=torch.long)).sum().backward()\n"
        "    optimizer.step()\n"
        "    optimizer.zero_grad()\n"
    )
    limit = length_limit(watched(script_of(tmp_path, text), tmp_path))
    assert limit is not None
    assert limit.num_samples == 6 * 4


@pytest.mark.slow
def test_a_buffer_that_is_emptied_after_some_steps_is_no_metric(tmp_path):
    text = (
        "import torch\n"
        "policy = torch.nn.Linear(512, 6)\n"
        "optimizer = torch.optim.Adam(policy.parameters())\n"
        "seen = []\n"
        "for _ in range(4):\n"
        "    for _ in range(20):\n"
        "        seen.append(torch.randn(8, 512))\n"
        "        with torch.no_grad():\n"
        "            policy(seen[-1])\n"
        "    for _ in range(3):\n"
        "        optimizer.zero_grad()\n"
        "        policy(torch.cat(seen[:4])).mean().backward()\n"
        "        optimizer.step()\n"
        "    seen.clear()\n"
    )
    assert detect(watched(script_of(tmp_path, text), tmp_path)) == []


@pytest.mark.slow
def test_what_is_moved_to_the_host_leaves_the_card(tmp_path):
    log = watched(script_of(tmp_path, "import torch\nkept = torch.zeros(2**20).cpu()\n"), tmp_path)
    assert log.phases[0].after.peak_allocated_bytes == 4 * MIB
    assert log.phases[0].after.allocated_bytes == 0


WRAPPED = """
import os, tempfile, torch
import torch.distributed as dist
from torch import nn
store = "file://" + os.path.join(tempfile.mkdtemp(), "store")
dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view={views})
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(4):
    optimizer.zero_grad()
    model(torch.randn(8, 256)).mean().backward()
    optimizer.step()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("views", [False, True])
def test_buckets_beside_the_gradients_are_told(views, tmp_path):
    log = watched(script_of(tmp_path, WRAPPED.format(views=views)), tmp_path, 32 * MIB)
    assert log.run.model is not None
    assert log.run.model.name == "Sequential"
    assert ("communication-buffers" in {finding.cause for finding in detect(log)}) is not views
