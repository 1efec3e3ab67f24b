"""The whole way by the command line: probe, train, evaluate, generate; stopped and resumed; generation alone."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from safetensors.torch import load_file

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.preset import load_preset
from memory_harness.harness.results import experiments
from memory_harness.reports.entry import main
from tests.e2e.commands import HANG_SECONDS, ROOT, run_probe, wait_until
from tests.reports import schema

SCHEMAS = Path(experiments.__file__).with_name("schemas")
TRAIN = ("--preset", "smoke_cpu", "--train", "--json", "report.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("smoke")


@pytest.fixture(scope="module")
def ended(folder):
    before = cpu_seconds()
    result = run_probe(*TRAIN, folder=folder)
    # three minutes of a core, whatever else the machine is doing
    assert cpu_seconds() - before < 180
    return result


def cpu_seconds():
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def training(folder):
    return json.loads((folder / "report.json").read_text())["training"]


def test_the_smoke_preset_goes_the_whole_way_in_three_minutes(ended, folder):
    assert ended.code == 0, ended.stderr
    for words in ("FITS", "TRAINED", "10 of 10 steps", "evaluation at step 5", "perplexity"):
        assert words in ended.stdout
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "pass"
    result = report["training"]
    assert (result["outcome"], result["step"], result["weights"]) == ("completed", 10, "random")
    assert "passed" in result["let_in_by"]
    assert result["last_loss"] < result["first_loss"] - 0.03
    losses = {record["model"]: record["loss"] for record in result["evals"]}
    assert losses["tuned"] < losses["base"] - 0.1
    assert [record["model"] for record in result["metrics"]] == ["tuned", "base"]
    tuned, base = result["metrics"]
    assert tuned["perplexity"] < base["perplexity"]


def test_what_it_took_is_what_the_probe_had_said(ended, folder):
    result = training(folder)
    assert result["peak_reserved_bytes"] <= result["predicted_peak_reserved_bytes"]


def test_every_artefact_is_there_and_valid(ended, folder):
    runs = folder / "runs"
    for name in ("GeneratedResponses", "LLAMAExperiments"):
        content = json.loads((runs / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.validate(content, json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")))
    with (runs / "GeneratedResponses.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["answered_by"] for row in csv.DictReader(file)} >= {"tuned", "base"}
    adapter = Path(folder, training(folder)["artefacts"]["adapter"])
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 8
    assert load_file(adapter / "adapter_model.safetensors")
    assert "perplexity" in (adapter / "README.md").read_text(encoding="utf-8")
    log = Path(folder, training(folder)["artefacts"]["log"])
    assert json.loads(log.read_text().splitlines()[-1])["outcome"] == "completed"


@pytest.mark.slow
def test_a_run_that_is_told_to_stop_goes_on_where_it_was(ended, folder):
    """It is let in by the probe of before, is stopped within the first epoch, and resumed by the bare flag."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(ROOT / "run_probe.py"), *TRAIN]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as p:
        wait_for_step(folder, p)
        p.send_signal(signal.SIGTERM)
        _, errors = p.communicate(timeout=HANG_SECONDS)
    assert p.returncode == 128 + signal.SIGTERM, errors
    assert b"--resume" in errors
    runs = sorted((folder / "runs").glob("*-train*"))
    assert len(runs) == 2
    assert list(runs[1].glob("checkpoint-*"))
    resumed = run_probe("--resume", "--json", "report.json", folder=folder)
    assert resumed.code == 0, resumed.stderr
    kinds = [json.loads(line) for line in (runs[1] / "run.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in kinds if record["kind"] == "step"]
    uninterrupted = [json.loads(line) for line in (runs[0] / "run.jsonl").read_text().splitlines()]
    assert losses == [record["loss"] for record in uninterrupted if record["kind"] == "step"]
    first = next(record["let_in_by"] for record in uninterrupted if record["kind"] == "run")
    assert training(folder)["let_in_by"] == first
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    schema.check(report, "run")
    assert "--generate" in report["next"]["command"]


def artefacts(folder):
    """What lies beside the runs, but for the locks, which say who took them last."""
    files = [path for path in (folder / "runs").iterdir() if path.is_file() and path.suffix != ".lock"]
    return {path.name: path.read_bytes() for path in files}


def test_a_run_that_is_complete_is_not_done_again(ended, folder):
    run = sorted((folder / "runs").glob("*-train*"))[0]
    before = artefacts(folder)
    result = run_probe("--resume", str(run), "--num-gpus", "2", folder=folder)
    assert result.code == 0, result.stderr
    assert "complete, nothing is left to do" in result.stderr
    assert "goes on with" not in result.stderr
    assert "10 of 10 steps" in result.stdout
    assert artefacts(folder) == before


def test_what_is_no_run_is_told_before_anything_else(folder):
    (folder / "empty").mkdir(exist_ok=True)
    for flag, said in (("--resume", "no training run"), ("--generate", "no adapter in it")):
        refused = run_probe(flag, "empty", folder=folder)
        assert refused.code == 2
        (line,) = refused.stderr.splitlines()
        assert f"{flag} empty: {said}" in line


def wait_for_step(folder, process):
    """Wait until the run that began last has taken a step."""

    def has_step():
        assert process.poll() is None
        logs = sorted((folder / "runs").glob("*-train*/run.jsonl"))
        return len(logs) == 2 and '"kind": "step"' in logs[-1].read_text()

    wait_until(has_step)


@pytest.mark.slow
def test_an_adapter_answers_questions_of_ones_own(ended, folder):
    (folder / "questions.csv").write_text("question\nআজ মন খারাপ\n", encoding="utf-8")
    run = sorted((folder / "runs").glob("*-train*"))[0]
    flags = ("--prompts", "questions.csv", "--temperature", "1", "--replies-per-prompt", "2", "--max-new-tokens", "4")
    result = run_probe("--generate", str(run), *flags, "--json", "generated.json", folder=folder)
    assert result.code == 0, result.stderr
    assert "2 replies added to" in result.stdout
    schema.check(json.loads((folder / "generated.json").read_text(encoding="utf-8")), "run")
    assert "আজ মন খারাপ" in result.stdout
    content = json.loads((folder / "runs" / "GeneratedResponses.json").read_text(encoding="utf-8"))
    assert [reply["answered_by"] for reply in content["responses"][-2:]] == ["tuned", "tuned"]


def test_a_run_that_was_moved_leaves_its_results_beside_it(tmp_path, monkeypatch):
    run = tmp_path / "moved" / "x-train"
    run.mkdir(parents=True)
    config = load_preset("smoke_cpu").with_fields(output="/proc/where/it/was")
    (run / "config.json").write_text(json.dumps(config.to_dict()))
    checked = []

    def check(flag, config):
        checked.append((flag, config.output.output))
        raise ConfigError("enough")

    monkeypatch.setattr("memory_harness.reports.command_train._check_before_training", check)
    # which looks for a checkpoint
    monkeypatch.setattr("memory_harness.reports.command_train.gate_of_run", lambda resume, config: None)
    assert main(["--resume", str(run)]) == 2
    assert checked == [("--resume", str(run.parent))]


def test_what_cannot_be_trained_is_refused_at_once(folder):
    refused = run_probe("--train", "--device", "simulated", folder=folder)
    assert refused.code == 2
    assert "--train: there is no CUDA GPU here" in refused.stderr
    assert "--random-weights" in refused.stderr
