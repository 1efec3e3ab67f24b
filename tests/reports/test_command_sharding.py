"""`--sharding all` shows what each way takes, and ends with 1 where none fits."""

import json
import re
import shlex

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.units import GIB
from memory_harness.probes.plan.choose import Prediction
from memory_harness.reports import command_sharding
from memory_harness.reports.command_sharding import compare_shardings
from tests.reports import schema

ASKED = ["--sharding", "all", "--preset", "smoke_cpu", "--tensors", "fake", "--gpu", "t4", "--num-gpus", "2"]


def gpus(*peaks):
    return tuple(Prediction(True, int(peak * GIB), int(peak * GIB)) for peak in peaks)


def show(monkeypatch, tmp_path, capsys, taken, *more):
    def predict(configs, pool):
        return [taken[config.device.engine] for config in configs]

    monkeypatch.setattr(command_sharding, "predict_gpus", predict)
    file = tmp_path / "all.json"
    code = compare_shardings(parse_args([*ASKED, *more, "--json", str(file)]))
    content = json.loads(file.read_text(encoding="utf-8"))
    schema.check(content, "sharding")
    out = capsys.readouterr().out
    parse_args(shlex.split(content["next"]["command"].partition("run_probe.py")[2]))
    return code, out, content


def test_the_table_says_which_to_take(monkeypatch, tmp_path, capsys):
    taken = {"ddp": gpus(20), "fsdp": gpus(9), "split": gpus(6, 10)}
    code, text, content = show(monkeypatch, tmp_path, capsys, taken)
    assert code == 0
    assert "Take --sharding fsdp" in text
    assert "1 of 2" in text
    assert content["take"] == "fsdp"
    assert {"--sharding fsdp", "--train"} <= set(re.findall("--train|--sharding [a-z]+", content["next"]["command"]))
    assert [engine["fits"] for engine in content["engines"]] == [False, True, True]


def test_it_ends_with_1_where_none_fits(monkeypatch, tmp_path, capsys):
    refused = "--sharding split: device_map would leave 3 parts of the model to the host"
    code, text, content = show(monkeypatch, tmp_path, capsys, {"ddp": gpus(20), "fsdp": gpus(15), "split": refused})
    assert code == 1
    assert "DOES NOT FIT" in text
    assert "device_map would leave" in text
    assert content["take"] is None
    assert "--num-gpus" not in content["next"]["command"]


def test_it_is_not_decided_where_one_may_fit(monkeypatch, tmp_path, capsys):
    tight = (Prediction(True, 12 * GIB, 15 * GIB), *gpus(5))
    code, text, content = show(monkeypatch, tmp_path, capsys, {"ddp": gpus(20), "fsdp": gpus(15), "split": tight})
    assert code == 3
    assert "NOT DECIDED" in text
    assert "only just" in text
    assert content["take"] is None
    command = content["next"]["command"]
    assert "--sharding split" in command
    assert "--train" not in shlex.split(command)


@pytest.mark.parametrize("engine", ["ddp", "fsdp", "split"])
def test_the_command_that_it_names_is_one_that_runs(monkeypatch, tmp_path, capsys, engine):
    taken = {**dict.fromkeys(("ddp", "fsdp", "split"), gpus(20)), engine: gpus(9)}
    _, _, content = show(monkeypatch, tmp_path, capsys, taken, "--num-gpus", "16")
    config = parse_args(shlex.split(content["next"]["command"].partition("run_probe.py")[2])).config
    assert config.device.engine == engine
    assert config.train.gradient_accumulation == (2 if engine == "split" else 16)  # the preset's


@pytest.mark.parametrize("more", [["--train"], ["--limits"], ["--html", "page.html"], ["--no-fixes"]])
def test_what_means_nothing_beside_it_is_refused(more):
    with pytest.raises(ConfigError, match="has no meaning beside --sharding all"):
        parse_args([*ASKED, *more])


def test_one_gpu_shares_with_none():
    with pytest.raises(ConfigError, match="--num-gpus 2 or more"):
        parse_args(ASKED[:-2])


@pytest.mark.slow
def test_a_tiny_model_is_simulated_with_each(tmp_path, capsys):
    file = tmp_path / "all.json"
    assert compare_shardings(parse_args([*ASKED, "--samples", "16", "--json", str(file)])) == 0
    engines = {each["engine"]: each for each in json.loads(file.read_text(encoding="utf-8"))["engines"]}
    assert [len(engines[name]["gpus"]) for name in ("ddp", "fsdp", "split")] == [1, 1, 2]
    assert all(each["fits"] for each in engines.values())
    assert "Take --sharding ddp" in capsys.readouterr().out
