"""The best adapter, kept on disk and read back."""

import shutil
from types import SimpleNamespace

import peft
import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.models import find_model
from memory_harness.configs.preset import load_preset
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.errors import CheckpointError
from memory_harness.harness.log.records import EvalRecord
from memory_harness.harness.strategies.architecture import transformers_config
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.train.finetune import BestAdapter
from tests.builders import AS_PUBLISHED, make_log

CONFIG = load_preset("smoke_cpu").with_fields(quantization="none")


class Adapter:
    """Stands for a strategy: its adapter is a number."""

    value = 0
    disk_is_full = False

    def export(self, folder, adapter=None):
        if self.disk_is_full:
            raise OSError("no space left")
        folder.mkdir(exist_ok=True)
        (folder / "value").write_text(str(self.value))

    def load_adapter(self, folder):
        self.value = int((folder / "value").read_text())


def evaluated(step, loss, model="tuned"):
    return EvalRecord(step, 1, 1, 10, loss, model)


def best_adapter(tmp_path, strategy, earlier=(), step=0):
    """Return what keeps the adapter of a run that goes on after so many evaluations, and what it writes down."""
    log = make_log(AS_PUBLISHED)
    log.evals[:] = earlier
    written = []
    best = BestAdapter(strategy, tmp_path / "adapter")
    best.begin(SimpleNamespace(step=step, write=written.append), log)
    return best, written


def trained(tmp_path, losses, earlier=(), strategy=None):
    """Return the strategy after so many evaluations, one a step, its value the step's number, and the best record."""
    strategy = strategy or Adapter()
    best, _ = best_adapter(tmp_path, strategy, earlier)
    for step, loss in enumerate(losses, 1):
        strategy.value = step
        best.consider(evaluated(step, loss))
    record = best.restore(len(losses))
    return strategy.value, record


@pytest.mark.parametrize(
    ("losses", "best_step"),
    [([3.0, 2.0, 1.0], 3), ([3.0, 1.0, 2.0], 2), ([1.0, 1.0], 1), ([float("nan"), 5.0, 6.0], 2), ([2.0, None], 1)],
)
def test_the_adapter_with_the_lowest_held_out_loss_is_kept_and_put_back(tmp_path, losses, best_step):
    value, record = trained(tmp_path, losses)
    assert value == record.step == best_step
    assert (tmp_path / "adapter" / "value").read_text() == str(best_step)


def test_without_an_evaluation_the_last_adapter_is_kept(tmp_path):
    value, record = trained(tmp_path, [None, None])
    assert record is None
    assert value == 2
    assert (tmp_path / "adapter" / "value").read_text() == "2"


def test_a_resumed_run_knows_the_best_of_before(tmp_path):
    keep(tmp_path, 77, evaluated(1, 0.5))
    value, record = trained(tmp_path, [None, 2.0, 1.0], [evaluated(1, 0.5), evaluated(2, 0.1, "base")])
    assert (value, record.loss) == (77, 0.5)


def keep(tmp_path, value, record):
    """Leave what a process that was killed had on disk."""
    strategy = Adapter()
    strategy.value = value
    best_adapter(tmp_path, strategy)[0].consider(record)


def test_an_evaluation_that_was_lost_is_no_rival_of_what_is_trained_now(tmp_path):
    keep(tmp_path, 99, evaluated(3, 0.1))  # after the checkpoint, or of steps that are done otherwise now
    value, record = trained(tmp_path, [3.0, 2.0, 2.5], [evaluated(0, 4.0)])
    assert (value, record.step) == (2, 2)


def test_what_the_log_says_was_best_counts_only_where_it_is_on_disk(tmp_path):
    """The evaluation was logged, and the run killed before its adapter was written."""
    keep(tmp_path, 2, evaluated(2, 2.0))
    strategy = Adapter()
    best, _ = best_adapter(tmp_path, strategy, [evaluated(2, 2.0)], step=2)
    strategy.value = 4
    best.consider(evaluated(4, 1.0))
    assert best.restore(4).step == 4
    assert (tmp_path / "adapter" / "value").read_text() == "4"


def test_the_adapter_of_the_checkpoint_is_kept_again_where_a_lost_one_took_its_place(tmp_path):
    keep(tmp_path, 99, evaluated(3, 0.1))
    strategy = Adapter()
    strategy.value = 2  # as restored
    best, _ = best_adapter(tmp_path, strategy, [evaluated(1, 3.0), evaluated(2, 2.0)], step=2)
    strategy.value = 3
    best.consider(evaluated(3, 2.5))
    assert best.restore(3).step == 2
    assert strategy.value == 2


def test_an_adapter_that_was_lost_between_two_renames_is_found_again(tmp_path):
    keep(tmp_path, 1, evaluated(1, 1.0))
    (tmp_path / "adapter").rename(tmp_path / ".adapter.replaced")
    value, record = trained(tmp_path, [None, 2.0], [evaluated(1, 1.0)])
    assert (value, record.step) == (1, 1)


def test_a_full_disk_does_not_stop_the_training(tmp_path):
    strategy = Adapter()
    best, written = best_adapter(tmp_path, strategy)
    strategy.value = 1
    best.consider(evaluated(1, 2.0))
    strategy.value, strategy.disk_is_full = 2, True
    best.consider(evaluated(2, 1.0))
    assert [(record.step, record.action) for record in written] == [(2, "skip-adapter")]
    assert best.restore(2).step == 1
    assert strategy.value == 1


def test_what_is_evaluated_after_training_is_not_considered(tmp_path):
    strategy = Adapter()
    best, _ = best_adapter(tmp_path, strategy)
    best.consider(evaluated(1, 2.0))
    best.restore(1)
    strategy.value = 9
    best.consider(evaluated(1, 0.1))
    assert (tmp_path / "adapter" / "value").read_text() == "0"


def loaded(**changes):
    device = SimulatedDevice(find_card("t4"), 2**30, computes=True)
    strategy = QLoraStrategy(CONFIG.with_fields(**changes), device)
    with device.active():
        strategy.load()
    return strategy


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A strategy whose adapter does something, and where that was written."""
    strategy, folder = loaded(), tmp_path_factory.mktemp("run") / "adapter"
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in strategy.trainable():
            parameter.normal_(generator=generator)
    strategy.export(folder)
    return strategy, folder


def test_an_adapter_is_read_back_bit_by_bit(exported):
    strategy, folder = exported
    other = loaded()
    assert not all(torch.equal(a, b) for a, b in zip(strategy.trainable(), other.trainable(), strict=True))
    before = other.device.stats().allocated_bytes
    with other.device.active():
        other.load_adapter(folder)
    assert all(torch.equal(a, b) for a, b in zip(strategy.trainable(), other.trainable(), strict=True))
    assert other.device.stats().allocated_bytes == before


def test_what_the_library_makes_of_a_full_disk_is_an_oserror(exported, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("peft.peft_model.safe_save_file", refuse)
    with pytest.raises(OSError, match="No space left on device"):
        exported[0].export(tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_at_the_end_is_one_clear_line(tmp_path):
    strategy = Adapter()
    strategy.disk_is_full = True
    best, _ = best_adapter(tmp_path, strategy)
    with pytest.raises(CheckpointError, match=r"cannot be written \(no space left\); make room, then .*--resume"):
        best.restore(3)


def test_peft_reads_what_was_written(exported):
    strategy, folder = exported
    base = AutoModelForCausalLM.from_config(transformers_config(find_model("tiny-llama")))
    own = strategy.model.get_base_model().state_dict()
    base.load_state_dict({name.replace(".base_layer", ""): v for name, v in own.items() if "lora" not in name})
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    ids = torch.arange(12)[None]
    strategy.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, strategy.model(ids).logits)


@pytest.mark.parametrize("changes", [{"lora_rank": 4}, {"target_modules": ("q_proj",)}], ids=["rank", "layers"])
def test_an_adapter_of_another_shape_is_refused(exported, changes):
    other = loaded(**changes)
    with pytest.raises(ConfigError, match="of other layers or another rank"):
        other.load_adapter(exported[1])


def test_a_folder_without_an_adapter_is_named(exported, tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        exported[0].load_adapter(tmp_path)
    shutil.copytree(exported[1], tmp_path / "cut")
    file = tmp_path / "cut" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ConfigError, match="cut"):
        exported[0].load_adapter(tmp_path / "cut")
