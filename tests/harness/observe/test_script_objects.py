"""What a watched script's weights tell of its updates."""

from types import ModuleType, SimpleNamespace

import torch

from memory_harness.harness.log.records import DRAWING
from memory_harness.harness.observe import script_objects
from memory_harness.harness.observe.script_objects import LeafUpdates, OptimizerSteps, places_of_settings


def test_weights_whose_memory_is_freed_under_them_are_not_read():
    updates, weight = LeafUpdates(has_values=True), torch.nn.Parameter(torch.ones(8))
    updates.note([weight])
    weight.untyped_storage().resize_(0)
    assert not updates.are_updated([weight])
    updates.note([weight])
    assert not updates.are_updated([weight])


def test_a_parameter_put_in_the_place_of_another_begins_no_new_training():
    optimizers, groups = OptimizerSteps(), [torch.nn.Parameter(torch.ones(8))]
    optimizer = torch.optim.SGD(groups, 0.1)
    for _ in range(3):
        assert optimizers.ends_step(optimizer)
        optimizer.param_groups[0]["params"] = [torch.nn.Parameter(torch.ones(8))]
    assert optimizers.training == 1


def test_an_optimizer_of_another_model_begins_a_training_once_the_first_steps_no_more():
    optimizers = OptimizerSteps()
    first = torch.optim.SGD([torch.nn.Parameter(torch.ones(8))], 0.1)
    second = torch.optim.SGD([torch.nn.Parameter(torch.ones(8))], 0.1)
    assert optimizers.ends_step(first)
    while not optimizers.ends_step(second):
        assert optimizers.training == 1
    assert optimizers.training == 2


def test_a_policy_may_draw_in_a_module_of_the_users(tmp_path, monkeypatch):
    policy = tmp_path / "policy.py"
    policy.write_text("def act(distribution):\n    return distribution.sample()\n", encoding="utf-8")
    modules = {"__main__": ModuleType("__main__"), "policy": ModuleType("policy")}
    modules["policy"].__file__ = str(policy)
    monkeypatch.setattr(script_objects, "sys", SimpleNamespace(modules=modules))
    assert places_of_settings()[DRAWING].endswith("policy.py:2")
