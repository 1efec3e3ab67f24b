"""What trackers are sent, through stand-ins for their clients."""

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
    run = types.SimpleNamespace(log=note("wandb", "log"), finish=note("wandb", "close"))
    wandb.init = lambda **kwargs: told.append(("wandb", "open", kwargs)) or run
    for name in ("set_experiment", "start_run", "log_metrics", "end_run"):
        setattr(mlflow, name, note("mlflow", name))
    for name in ("init", "log", "finish"):
        setattr(trackio, name, note("trackio", name))
    modules = {"tensorboard": tensorboard, "tensorboard.summary": tensorboard.summary}
    for name, module in {**modules, "wandb": wandb, "mlflow": mlflow, "trackio": trackio}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return told


def fed(path, names):
    feed = TrackerFeed(path, names)
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
def test_every_client_gets_its_numbers_with_their_step(clients, tmp_path, name):
    fed(tmp_path / "run.jsonl", [name])
    sent = [entry for entry in clients if entry[1] in ("log", "log_metrics")]
    assert len(sent) == 7
    assert sent[0][2][0]["train/loss"] == 3.0
    assert sent[0][3] == {"step": 1}
    assert clients[-1][1] in ("close", "end_run", "finish")


def test_a_run_that_is_not_wanted_opens_nothing(clients, tmp_path):
    feed = TrackerFeed(tmp_path / "run.jsonl", ["wandb"], lambda run: False)
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
