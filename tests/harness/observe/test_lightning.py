"""A training of Lightning's, recorded through the hooks that its trainer calls."""

import importlib
import importlib.machinery
import sys
import types

import pytest
import torch

from memory_harness.configs.errors import ConfigError
from memory_harness.harness.log.records import Outcome, Phase
from memory_harness.harness.log.runlog import read_run_log

PATH = "memory_harness.harness.observe.lightning"


@pytest.fixture
def lightning_callback(monkeypatch):
    """The class over a stand-in for Lightning's, whose import takes seconds."""
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["lightning.pytorch.callbacks"].Callback = type("Callback", (), {})
    monkeypatch.delitem(sys.modules, PATH, raising=False)
    yield importlib.import_module(PATH).LightningCallback
    sys.modules.pop(PATH, None)


class Trainer:
    """Calls the hooks in the order in which Lightning's loops do; two micro-batches are a step."""

    def __init__(self, callback, steps=3):
        self.callback = callback
        self.estimated_stepping_batches, self.max_epochs, self.current_epoch = steps, 1, 0
        self.callback_metrics = {}

    def fit(self, module, optimizer, fails_at=None):
        callback = self.callback
        callback.on_train_start(self, module)
        callback.on_train_epoch_start(self, module)
        try:
            for index in range(2 * self.estimated_stepping_batches):
                if index == fails_at:
                    raise RuntimeError("the data ended")
                self.train_batch(module, optimizer, torch.ones(4, 16), index)
        except RuntimeError as error:
            callback.on_exception(self, module, error)
            raise
        callback.on_validation_batch_start(self, module, torch.ones(4, 16), 0)
        with torch.no_grad():
            module(torch.ones(4, 16))
        callback.on_validation_batch_end(self, module, None, None, 0)
        self.callback_metrics["val_loss"] = torch.tensor(0.25)
        callback.on_validation_end(self, module)
        callback.on_save_checkpoint(self, module, {})
        callback.on_train_end(self, module)

    def train_batch(self, module, optimizer, batch, index):
        callback = self.callback
        callback.on_train_batch_start(self, module, batch, index)
        loss = module(batch).square().mean() / 2
        callback.on_before_backward(self, module, loss)
        loss.backward()
        if index % 2:
            callback.on_before_optimizer_step(self, module, optimizer)
            optimizer.step()
            optimizer.zero_grad()
        callback.on_train_batch_end(self, module, None, batch, index)


def trained(callback_class, path, **how):
    module = torch.nn.Linear(16, 4)
    callback = callback_class(path, device="simulated", budget="64 MiB")
    trainer = Trainer(callback)
    trainer.fit(module, torch.optim.AdamW(module.parameters()), **how)
    return read_run_log(path.with_suffix(".jsonl"))


def test_steps_phases_losses_and_the_validation_are_recorded(lightning_callback, tmp_path):
    log = trained(lightning_callback, tmp_path / "run")
    assert log.outcome is Outcome.COMPLETED
    assert [step.step for step in log.steps] == [1, 2, 3]
    assert all(step.micro_steps in (0, 2) and step.loss > 0 for step in log.steps)
    phases = {record.phase for record in log.phases}
    assert phases >= {Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.EVAL, Phase.CHECKPOINT}
    assert [record.loss for record in log.evals] == [0.25]
    assert log.run.total_steps == 3
    kinds = {kind for record in log.peaks_seen for kind in record.kinds}
    assert {"weights", "gradients", "optimizer"} <= kinds


def test_an_error_ends_the_log(lightning_callback, tmp_path):
    with pytest.raises(RuntimeError, match="the data ended"):
        trained(lightning_callback, tmp_path / "run", fails_at=3)
    log = read_run_log(tmp_path / "run.jsonl")
    assert log.outcome is Outcome.ERROR
    assert "the data ended" in log.end.message
    assert len(log.steps) == 1


def test_steps_are_sent_to_a_tracker_as_they_end(lightning_callback, tmp_path, monkeypatch):
    sent = []
    trackio = types.ModuleType("trackio")
    trackio.__spec__ = importlib.machinery.ModuleSpec("trackio", None)
    run = types.SimpleNamespace(log=lambda values, step: sent.append((step, sorted(values))), finish=lambda: None)
    trackio.init = lambda **kwargs: run
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    module = torch.nn.Linear(16, 4)
    callback = lightning_callback(tmp_path / "run", device="simulated", budget="64 MiB", log_to=["trackio"])
    Trainer(callback, steps=2).fit(module, torch.optim.SGD(module.parameters(), lr=0.1))
    assert [step for step, _ in sent[:2]] == [1, 2]
    with pytest.raises(ConfigError, match="log_to neptune: unknown"):
        lightning_callback(tmp_path / "run", log_to=["neptune"])


@pytest.mark.slow
def test_the_trainer_itself_calls_it(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    from memory_harness import LightningCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(16, 4)

        def training_step(self, batch, _):
            return self.layer(batch).square().mean()

        def validation_step(self, batch, _):
            self.log("val_loss", self.layer(batch).square().mean())

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    data = torch.utils.data.DataLoader(torch.ones(16, 16), batch_size=4)
    memory = LightningCallback(tmp_path / "run", device="simulated", budget="64 MiB")
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=2, callbacks=[memory], logger=False,
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Module(), data, data)
    log = read_run_log(tmp_path / "run.jsonl")
    assert log.outcome is Outcome.COMPLETED
    assert len(log.steps) == 2
    assert len(log.evals) == 1
    assert log.evals[0].loss is not None
    assert {Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.EVAL} <= {record.phase for record in log.phases}
