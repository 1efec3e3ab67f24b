"""Settings of a script that are seen and changed from outside."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.observe.knobs import knobs_of_scripts, read_knobs


def test_values_are_read_as_python_has_them():
    texts = ("gradient_checkpointing=true", "per_device_eval_batch_size=1", "optim=paged_adamw_8bit")
    assert read_knobs(texts) == {
        "gradient_checkpointing": True,
        "per_device_eval_batch_size": 1,
        "optim": "paged_adamw_8bit",
    }


@pytest.mark.parametrize("text", ["learning_rate=1", "optim", "optim=", "=1"])
def test_other_names_are_refused_with_those_allowed(text):
    with pytest.raises(ConfigError, match=r"--override .*allowed names: batch_size"):
        read_knobs((text,))


def test_a_loader_of_the_scripts_is_noted_and_changed():
    data, noted = TensorDataset(torch.zeros(6, 2)), []
    with knobs_of_scripts({"batch_size": 2}, noted.append):
        loader = DataLoader(data, batch_size=3)
    assert [len(batch) for (batch,) in loader] == [2, 2, 2]
    (knob,) = noted
    assert (knob.name, knob.value) == ("batch_size", "3")
    assert "test_knobs.py:" in knob.where
    assert len(next(iter(DataLoader(data, batch_size=3)))[0]) == 3


def test_arguments_of_the_trainer_are_noted_and_changed(tmp_path):
    from transformers import TrainingArguments

    noted = []
    changes = {"per_device_eval_batch_size": 1, "gradient_checkpointing": True}
    with knobs_of_scripts(changes, noted.append):
        arguments = TrainingArguments(output_dir=str(tmp_path), per_device_eval_batch_size=8)
    assert arguments.per_device_eval_batch_size == 1
    assert arguments.gradient_checkpointing
    assert {knob.name for knob in noted} >= {"per_device_train_batch_size", "optim"}


def test_a_setting_that_the_arguments_lack_is_refused(tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(ConfigError, match="have no max_length"), knobs_of_scripts({"max_length": 8}, lambda _: None):
        TrainingArguments(output_dir=str(tmp_path))
