"""What trackers are sent, through stand-ins for their clients."""

import contextvars
import importlib
import sys
import types
from dataclasses import replace

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log import trackers
from memory_harness.harness.log.runlog import LogWriter
from memory_harness.harness.log.trackers import TrackerFeed, check_trackers
from tests.builders import AS_PUBLISHED, make_log

LOG = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
LOG = replace(LOG, steps=[replace(step, loss=3.0) for step in LOG.steps], evals=[replace(LOG.evals[0], loss=2.5)])


@pytest.fixture
def clients(monkeypatch):
    """Modules in the place of the clients; what they were told."""
    told = []

    class Writer:
        def __init__(self, folder):
            told.append(("tensorboard", "open", folder))

        def add_scalar(self, tag, value, step):
            told.append(("tensorboard", tag, value, step))

        def close(self):
            told.append(("tensorboard", "close"))

    def note(client, what):
        return lambda *args, **kwargs: told.append((client, what, args, kwargs))

    tensorboard = types.ModuleType("tensorboard")
    tensorboard.summary = types.ModuleType("tensorboard.summary")
    tensorboard.summary.Writer = Writer
    wandb, mlflow, trackio = (types.ModuleType(name) for name in ("wandb", "mlflow", "trackio"))

    def opener(client):
        run = types.SimpleNamespace(log=note(client, "log"), finish=note(client, "close"))
        return lambda **kwargs: told.append((client, "open", kwargs)) or run

    wandb.init, trackio.init = opener("wandb"), opener("trackio")
    mlflow.entities = types.SimpleNamespace(Metric=lambda key, value, timestamp, step: (key, value, step))
    mlflow.MlflowClient = lambda: types.SimpleNamespace(
        get_experiment_by_name=lambda name: None,
        create_experiment=note("mlflow", "experiment"),
        create_run=lambda experiment, run_name: types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_name)),
        log_batch=lambda run, metrics: told.append(("mlflow", "log", (run, {k: v for k, v, _ in metrics}), metrics)),
        set_terminated=note("mlflow", "close"),
    )
    modules = {"tensorboard": tensorboard, "tensorboard.summary": tensorboard.summary}
    for name, module in {**modules, "wandb": wandb, "mlflow": mlflow, "trackio": trackio}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return told


def fed(path, names):
    feed = TrackerFeed(path, path.stem, names)
    with LogWriter(path) as writer:
        feed.update()
        for record in (LOG.run, *LOG.phases[:40], *LOG.steps[:4]):
            writer.write(record)
        feed.update()
        feed.update()
        for record in (*LOG.steps[4:6], *LOG.evals):
            writer.write(record)
    feed.close()


def test_each_step_and_evaluation_is_sent_once(clients, tmp_path):
    fed(tmp_path / "run.jsonl", ["tensorboard"])
    losses = [entry for entry in clients if entry[1] == "train/loss"]
    assert [entry[3] for entry in losses] == [1, 2, 3, 4, 5, 6]
    assert ("tensorboard", "eval/loss", 2.5, LOG.evals[0].step) in clients
    peaks = [entry[2] for entry in clients if entry[1] == "memory/peak_allocated_GiB"]
    highest = max(record.after.peak_allocated_bytes for record in LOG.phases if record.step == 1)
    assert peaks[0] == highest / 2**30
    assert clients[-1] == ("tensorboard", "close")


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_every_client_gets_its_numbers_with_their_step_and_in_order(clients, tmp_path, name):
    fed(tmp_path / "mine.jsonl", [name])
    sent = [entry for entry in clients if entry[1] == "log"]
    values = [entry[2][-1] for entry in sent]
    assert len(sent) == 7
    assert values[0]["train/loss"] == 3.0
    steps = [entry[3]["step"] if name != "mlflow" else entry[3][0][2] for entry in sent]
    assert steps == sorted(steps), "Weights & Biases drops what is of an earlier step"
    assert clients[-1][:2] == (name, "close")


def test_every_run_is_a_new_one_that_has_the_name_of_its_log(clients, tmp_path):
    """The run that a Trainer's `report_to` has open in the same process is neither written to nor ended."""
    fed(tmp_path / "mine.jsonl", ["wandb", "mlflow"])
    opened = next(entry[2] for entry in clients if entry[:2] == ("wandb", "open"))
    assert (opened["name"], opened["reinit"]) == ("mine", "create_new")
    assert ("mlflow", "close", ("mine",), {}) in clients


def test_a_run_that_is_open_in_this_context_is_hidden_from_a_client_that_would_end_it(clients, tmp_path, monkeypatch):
    current = contextvars.ContextVar("current", default=None)
    current.set("the user's")
    seen = []
    run = types.SimpleNamespace(log=lambda values, step: None, finish=lambda: None)
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda **kwargs: seen.append(current.get()) or run)
    fed(tmp_path / "mine.jsonl", ["trackio"])
    assert seen == [None]
    assert current.get() == "the user's"


@pytest.mark.parametrize("fails_at", ["init", "log", "finish"])
def test_a_tracker_that_fails_ends_nothing(clients, tmp_path, monkeypatch, capsys, fails_at):
    def fail(*args, **kwargs):
        raise RuntimeError("no such host\nmore")

    if fails_at == "init":
        monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    else:
        run = types.SimpleNamespace(**{"log": lambda values, step: None, "finish": lambda: None, fails_at: fail})
        monkeypatch.setattr(sys.modules["wandb"], "init", lambda **kwargs: run)
    fed(tmp_path / "mine.jsonl", ["wandb", "trackio"])
    assert capsys.readouterr().err == "--log-to wandb: no such host; the run goes on, nothing more is sent there\n"
    assert len([entry for entry in clients if entry[:2] == ("trackio", "log")]) == 7
    assert clients[-1][:2] == ("trackio", "close")


def test_a_run_that_is_not_wanted_opens_nothing(clients, tmp_path):
    feed = TrackerFeed(tmp_path / "run.jsonl", "run", ["wandb"], lambda run: False)
    with LogWriter(tmp_path / "run.jsonl") as writer:
        for record in (LOG.run, *LOG.steps):
            writer.write(record)
    feed.close()
    assert clients == []


def test_a_client_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--log-to mlflow: mlflow is not installed; pip install mlflow"):
        check_trackers(["mlflow"])
    with pytest.raises(ConfigError, match="unknown"):
        check_trackers(["neptune"])


def test_importing_this_imports_no_client():
    importlib.reload(trackers)
    assert not {"wandb", "mlflow", "trackio"} & set(sys.modules)
