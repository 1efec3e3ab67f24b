"""`--traceback` as people and programs see it."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from memory_harness.configs.units import GIB, format_bytes
from memory_harness.harness.log.marks import is_marked
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.traceback_text import parse_traceback
from memory_harness.probes.traceback.diagnosis import diagnose
from memory_harness.reports.command_traceback import _on_its_card
from memory_harness.reports.entry import main
from memory_harness.reports.terminal import make_console, print_sections
from memory_harness.reports.traceback import traceback_json, traceback_sections
from tests.builders import AS_PUBLISHED, as_published_oom
from tests.probes.traceback.render import TRACES, text_of
from tests.probes.traceback.test_traces import EVALUATION
from tests.reports import schema


def printed(text, simulated=None):
    file = io.StringIO()
    print_sections(traceback_sections(diagnose(parse_traceback(text), simulated)), make_console(file))
    return file.getvalue()


@pytest.mark.parametrize("trace", TRACES[::5], ids=lambda trace: trace["issue"])
def test_it_fits_80_columns_and_says_what_is_known_and_what_is_not(trace):
    text = printed(text_of(trace))
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.replace("│", " ").split())
    if trace["cause"] is None:
        assert "not enough to name a cause" in words
    else:
        assert f"Likely cause: {trace['cause']}." in words


def test_the_command_ends_as_a_run_does_that_does_not_fit_and_writes_what_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trace = next(trace for trace in TRACES if trace["issue"] == "huggingface/transformers#26702")
    (tmp_path / "oom.txt").write_text(text_of(trace), "utf-8")
    files = ("--json", "r.json", "--html", "r.html", "--svg", "r.svg")
    assert main(["--traceback", "oom.txt", *files]) == 1
    assert "logits-hoarded (likely)" in capsys.readouterr().out
    content = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert (content["cause"], content["phase"], content["place"]) == ("logits-hoarded", "EVAL", "collected-outputs")
    assert content["causes"][0]["strength"] == "likely"
    assert content["simulated"] is None
    assert is_marked("html", tmp_path / "r.html")
    assert is_marked("json", tmp_path / "r.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oom.txt", "r.html", "r.json", "r.svg"]


def test_standard_input_will_do(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(EVALUATION.format(outer="evaluate").encode())))
    assert main(["--traceback", "-"]) == 1
    assert "7.83 GiB" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--replay", "x"], ["--train"], ["--dry-run", "a.py"], ["--fault", "list"]])
def test_beside_another_mode_it_is_refused(flags, tmp_path, capsys):
    (tmp_path / "oom.txt").write_text(EVALUATION)
    assert main(["--traceback", str(tmp_path / "oom.txt"), *flags]) == 2
    assert "--traceback" in capsys.readouterr().err


def test_what_is_no_out_of_memory_is_one_line(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("all went well\n")
    os.mkfifo(tmp_path / "fifo")
    for name in ("notes.txt", "fifo", "missing"):
        assert main(["--traceback", str(tmp_path / name)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def evaluation_asking_for(num_bytes):
    return EVALUATION.format(outer="evaluate").replace("7.83 GiB", format_bytes(num_bytes))


def test_a_simulation_that_dies_of_the_same_request_proves_its_cause():
    log = as_published_oom()
    assert log.fatal_oom is not None
    text = evaluation_asking_for(log.fatal_oom.requested_bytes)
    diagnosis = diagnose(parse_traceback(text), log)
    assert diagnosis.cause == "eval-batch-logits"
    assert any("the same" in reason for reason in diagnosis.candidates[0].speaks_for)
    assert "float32 logits" in printed(text, log)
    assert "it dies in EVAL" in " ".join(printed(text, log).split())
    content = json.loads(traceback_json(diagnosis))
    schema.check(content, "traceback")
    assert content["next"]["command"].endswith("--explain eval-batch-logits")
    simulated = content["simulated"]
    assert simulated["oom"]["requested_bytes"] == log.fatal_oom.requested_bytes


def test_a_simulation_that_dies_of_something_else_proves_nothing():
    diagnosis = diagnose(parse_traceback(evaluation_asking_for(2**30)), as_published_oom())
    assert diagnosis.cause is None
    content = json.loads(traceback_json(diagnosis))
    schema.check(content, "traceback")
    assert content["next"]["words"] == "Look for what makes that run fit:"


def test_more_tokens_than_the_recipe_allows_were_not_truncated():
    text = EVALUATION.format(outer="evaluate").replace("7.83 GiB", "40.00 GiB")
    assert diagnose(parse_traceback(text), as_published_oom()).cause == "truncation-missing"


def test_without_a_model_the_size_is_guessed_from_the_family_in_the_frames():
    text = EVALUATION.format(outer="evaluate").replace("loss/loss_utils.py", "models/llama/modeling_llama.py")
    assert "logits of 128256 words: about 16388 tokens in float32" in " ".join(printed(text).split())
    assert "in float32" not in printed(text.replace("modeling_llama", "modeling_unheard_of"))


LAYER = """Traceback (most recent call last):
  File "site-packages/transformers/trainer.py", line 3485, in training_step
    loss = self.compute_loss(model, inputs)
  File "site-packages/transformers/models/llama/modeling_llama.py", line 900, in forward
    hidden_states = decoder_layer(
{between}  File "site-packages/transformers/models/llama/modeling_llama.py", line 180, in forward
    down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
RuntimeError: CUDA out of memory. Tried to allocate 56.00 MiB (GPU 0; 15.78 GiB total capacity; 15.00 GiB already \
allocated; 10.00 MiB free; 15.02 GiB reserved in total by PyTorch)
"""
CHECKPOINT = '  File "site-packages/torch/utils/checkpoint.py", line 496, in checkpoint\n    ret = function(*args)\n'


@pytest.mark.parametrize(("between", "cause"), [("", "checkpointing-lost"), (CHECKPOINT, None)])
def test_a_layer_without_the_checkpointing_of_the_recipe_has_lost_it(between, cause):
    diagnosis = diagnose(parse_traceback(LAYER.format(between=between)), as_published_oom())
    assert (diagnosis.reading.phase, diagnosis.cause) == (Phase.FORWARD, cause)
    assert diagnose(parse_traceback(LAYER.format(between=between))).cause is None  # without a recipe nobody knows


def test_a_limit_of_the_process_is_the_budget_of_the_simulation_beside_it():
    sizes = "16.00 GiB total capacity; 5.00 GiB already allocated; 10.00 GiB free; 6.00 GiB allowed"
    text = f"CUDA out of memory. Tried to allocate 1.00 GiB (GPU 0; {sizes}; 5.50 GiB reserved in total by PyTorch)"
    message = parse_traceback(text).message
    assert _on_its_card(AS_PUBLISHED, message).device.budget_bytes == 6 * GIB
    unknown = parse_traceback(text.replace("10.00 GiB free; 6.00 GiB allowed", "17179869184.00 GiB free")).message
    assert _on_its_card(AS_PUBLISHED, unknown).device.budget_bytes == 16 * GIB
