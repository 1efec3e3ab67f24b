"""What a watched script's weights tell of its updates."""

from types import ModuleType, SimpleNamespace

import torch

from memory_harness.harness.log.records import DRAWING
from memory_harness.harness.observe import script_objects
from memory_harness.harness.observe.script_objects import LeafUpdates, ModuleCalls, OptimizerSteps, places_of_settings


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


def test_what_is_trained_in_turns_waits_for_its_own_and_what_is_not_does_not():
    calls = ModuleCalls()
    pretraining, members = torch.nn.Linear(4, 8), [torch.nn.Linear(4, 4) for _ in range(3)]
    calls.note(pretraining, 1, trains=True)
    for step, member in enumerate([*members, *members[:2], torch.nn.Linear(4, 4)], 2):
        calls.note(member, step, trains=True)
    assert [module for module, _ in calls.models_before()] == [pretraining]
    later = torch.nn.Linear(4, 8)
    calls.note(later, 9, trains=True)
    assert pretraining in [module for module, _ in calls.models_before()]


def test_a_policy_may_draw_in_a_module_of_the_users(tmp_path, monkeypatch):
    policy = tmp_path / "policy.py"
    policy.write_text("def act(distribution):\n    return distribution.sample()\n", encoding="utf-8")
    modules = {"__main__": ModuleType("__main__"), "policy": ModuleType("policy")}
    modules["policy"].__file__ = str(policy)
    monkeypatch.setattr(script_objects, "sys", SimpleNamespace(modules=modules))
    assert places_of_settings()[DRAWING].endswith("policy.py:2")
