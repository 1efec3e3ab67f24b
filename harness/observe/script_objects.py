"""What a script's models, optimizers and files tell over time: what trains, what has trained, what was restored."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from itertools import chain
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor
from torch.utils.weak import WeakIdKeyDictionary

from memory_harness.harness.log.records import COLLECTOR_OFF, DRAWING, SORTING
from memory_harness.harness.log.source_lines import (
    calling_line,
    drawing_line,
    is_harness,
    is_library,
    setting_line,
    short_path,
    sorting_line,
)
from memory_harness.harness.observe.script_patches import innermost_code

OBSERVED_STEPS = 2
"""First steps of an optimizer that are observed: it makes its states in them. Later ones leave nothing, and what they
take for a moment is what they took then."""

MAX_OUTPUTS = 64  # of an evaluation that are remembered
MAX_NODES = 20_000  # of a graph that are looked at for its leaves
MAX_STEPS_BETWEEN = 4  # steps of other optimizers in a row after which the one that ended steps counts as out of use


class ModuleCalls:
    """In which steps the script has trained and called its modules."""

    def __init__(self) -> None:
        self._steps = weakref.WeakKeyDictionary[torch.nn.Module, tuple[int, int]]()
        """the first in which each was trained, and the last in which it was called"""
        self._num_calls = 0
        self._calls = weakref.WeakKeyDictionary[torch.nn.Module, tuple[int, int]]()
        """numbers of the first and the last call of each module"""
        self._newest_began = 0  # step in which the module was first trained that was so last
        self._returned = weakref.WeakSet[torch.nn.Module]()  # what was called again after another began to be trained

    def note(self, module: torch.nn.Module, step: int, *, trains: bool) -> None:
        """Take note of a call; a module counts from the first in which it is trained."""
        self._num_calls += 1
        first_call, _ = self._calls.get(module, (self._num_calls, 0))
        self._calls[module] = first_call, self._num_calls
        if trains or module in self._steps:
            first, last = self._steps.get(module, (step, step))
            self._steps[module] = (first, step)
            if last < self._newest_began:
                self._returned.add(module)
            self._newest_began = max(self._newest_began, first)

    def has_trained(self, module: torch.nn.Module) -> bool:
        """Return whether a module has been trained."""
        return module in self._steps

    def never_trained(self) -> list[tuple[torch.nn.Module, list[torch.Tensor]]]:
        """Return the models that were called only before the present one was for the first time, and never trained.

        Each comes with its parameters, but for those that the present one has taken over. In the first step a model
        may yet be called again: then they are those of its own class, where they are several.
        """
        trained = [module for module in self._steps if module in self._calls]
        if not trained:
            return []
        present = max(trained, key=lambda module: self._calls[module][0])
        began, _ = self._calls[present]
        taken_over = set(chain.from_iterable(map(id, module.parameters()) for module in trained))
        found: list[tuple[torch.nn.Module, list[torch.Tensor]]] = []
        for module, (_, last) in self._calls.items():
            own: list[torch.Tensor] = [part for part in module.parameters() if id(part) not in taken_over]
            if last < began and module not in self._steps and own:
                found.append((module, own))
        if self._num_calls == began:
            found = [(module, own) for module, own in found if type(module) is type(present)]
            return found if len(found) > 1 else []
        return found

    def models_before(self) -> list[tuple[torch.nn.Module, list[torch.Tensor]]]:
        """Return the models that were trained before the present one, and called no more since it is.

        Each comes with its parameters and gradients, but for parameters that the present one has taken over. One like
        those that have been trained in turns waits for its own.
        """
        in_turns = set(map(_kind_and_size, self._returned))
        began = max((first for first, _ in self._steps.values()), default=0)
        taken_over: set[int] = set()
        for module, (_, last) in self._steps.items():
            if last >= began:
                taken_over.update(map(id, module.parameters()))
        found = []
        for module, (_, last) in self._steps.items():
            if last < began and _kind_and_size(module) not in in_turns:
                own = [parameter for parameter in module.parameters() if id(parameter) not in taken_over]
                gradients = [parameter.grad for parameter in own if parameter.grad is not None]
                found.append((module, [*own, *gradients]))
        return found


def _kind_and_size(module: torch.nn.Module) -> tuple[type, int]:
    return type(module), sum(parameter.numel() for parameter in module.parameters())


def place_of_setting(name: str, values: Collection[object] = ()) -> str:
    """Return `file:line` in the script, or in a module of its user's, that gives a setting; empty where none does."""
    return _first_place(_modules(), lambda path: setting_line(path, name, values))


def _modules() -> list[ModuleType | None]:
    """Return what is imported, the script first."""
    return [sys.modules.get("__main__"), *sys.modules.values()]


def _first_place(modules: Iterable[ModuleType | None], find: Callable[[str], int | None]) -> str:
    """Return `file:line` of what is found first in files of the user's; empty where it is in none."""
    for module in modules:
        path = getattr(module, "__file__", None) or ""
        if path.endswith(".py") and not is_library(path) and not is_harness(path):
            line = find(path)
            if line is not None:
                return f"{short_path(path)}:{line}"
    return ""


SETTINGS: dict[str, tuple[object, ...]] = {
    "padding": ("max_length",),
    "pad_to_max_length": (True,),
    "compute_metrics": (),
    "per_device_eval_batch_size": (),
    "batch_sampler": (),
}
"""settings that a finding may be about, of tokenizers, `Trainer` and data loaders, and the values that matter"""


def places_of_settings() -> dict[str, str]:
    """Return `file:line` by setting, of those that the script gives, and of some of its calls.

    These: where it draws, where it itself sorts, and where it has switched the collector off.
    """
    found = {name: place_of_setting(name, values) for name, values in SETTINGS.items()}
    modules = _modules()
    found |= {SORTING: _first_place(modules[:1], sorting_line), DRAWING: _first_place(modules, drawing_line)}
    if not gc.isenabled():
        found[COLLECTOR_OFF] = _first_place(modules, lambda path: calling_line(path, "disable", "gc"))
    return {name: place for name, place in found.items() if place}


def line_that_trains_more(model: torch.nn.Module) -> str:
    """Return `file:line` that lets weights beside an adapter train: its configuration's, or a switch's."""
    configs = getattr(model, "peft_config", {})
    for name in ("modules_to_save", "trainable_token_indices"):
        if any(getattr(config, name, None) for config in dict(configs).values()):
            return place_of_setting(name)
    return place_of_setting("requires_grad", (True,))


class Addition(NamedTuple):
    """Parameters that a model has got since it was looked at last."""

    made_at: str  # `file:line` that made the most of them; empty where it was not seen
    num_bytes: int
    num_tensors: int


class ModelChanges:
    """What a script changes in its models amid the training: parameters that are added, switches that are flipped."""

    def __init__(self) -> None:
        self._made_at = WeakIdKeyDictionary()  # `file:line` by parameter
        self._most_bytes = weakref.WeakKeyDictionary[torch.nn.Module, int]()  # that each model has had so far
        self._flipped = weakref.WeakKeyDictionary[torch.nn.Module, dict[str, tuple[bool, str]]]()
        """by module and attribute: its value before, and where it was set"""

    def note_parameter(self, parameter: torch.Tensor, made_at: str) -> None:
        """Take note of where a parameter was made."""
        self._made_at[parameter] = made_at

    def forget_parameters(self) -> None:
        """Take the parameters that there are as made before the training."""
        self._made_at.clear()

    def made_at(self, model: torch.nn.Module) -> str | None:
        """Return where a model was made, where that was amid the training."""
        lines = filter(None, (self._made_at.get(parameter) for parameter in model.parameters()))
        return next(lines, None)

    def added_to(self, model: torch.nn.Module) -> Addition | None:
        """Return what a model has more than it ever had; None at its first look, and where there is nothing."""
        parameters = list(model.parameters())
        num_bytes = sum(parameter.nbytes for parameter in parameters)
        most = self._most_bytes.get(model)
        self._most_bytes[model] = max(num_bytes, most or 0)
        bytes_by_line: Counter[str] = Counter()
        num_tensors = 0
        for parameter in parameters:
            made_at = self._made_at.pop(parameter, None)
            if made_at is not None:
                bytes_by_line[made_at] += parameter.nbytes
                num_tensors += 1
        if most is None or num_bytes <= most:
            return None
        made_most_at = max(bytes_by_line, key=bytes_by_line.__getitem__, default="")
        return Addition(made_most_at, num_bytes - most, num_tensors)

    def note_switch(self, module: torch.nn.Module, name: str, before: bool, made_at: str) -> None:
        """Take note of an attribute that is about to be flipped."""
        self._flipped.setdefault(module, {}).setdefault(name, (before, made_at))

    def forget_switches(self) -> None:
        """Take the switches as they are now."""
        self._flipped.clear()

    def switched_at(self) -> str | None:
        """Return where the last of the switches was flipped that still are; `training` only where no other is."""
        found: dict[bool, str] = {}
        for module, flipped in self._flipped.items():
            for name, (before, made_at) in flipped.items():
                if getattr(module, name, before) is not before:
                    found[name == "training"] = made_at
        return found.get(False, found.get(True)) or None


class OptimizerSteps:
    """Which optimizers have stepped, which one ends the training steps, and how many trainings there have been."""

    def __init__(self) -> None:
        self._made = weakref.WeakKeyDictionary[torch.optim.Optimizer, str]()  # with the `file:line` that made each
        self._unchanged = weakref.WeakKeyDictionary[torch.optim.Optimizer, tuple[int, int]]()
        """steps that each has made with the same number of states, and that number"""
        self._leader: weakref.ref[torch.Tensor] | None = None  # whose optimizer ends the steps, where there are several
        self._leading: weakref.ref[torch.optim.Optimizer] | None = None  # the optimizer that has ended a step last
        self._num_between = 0  # steps of other optimizers since
        self._leaders: list[weakref.ref[torch.Tensor]] = []  # the leading parameters of all trainings so far
        self.training = 1  # number of the present training; counts from 1

    def is_settled(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether an optimizer of PyTorch's has done what it does now before, and so will leave nothing."""
        num_states = len(optimizer.state)
        num_steps, num_states_before = self._unchanged.get(optimizer, (0, 0))
        if num_states != num_states_before:
            num_steps = 0
        self._unchanged[optimizer] = (num_steps + 1, num_states)
        return num_steps >= OBSERVED_STEPS and type(optimizer).__module__.startswith("torch.optim.")

    def ends_step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether a step ends with this optimizer: the one that stepped first, or another with its parameters.

        Call it once for each step of an optimizer.
        """
        parameter = _first_parameter(optimizer)
        if parameter is None:  # some have nothing to do
            return False
        leader = self._leader() if self._leader else None
        if parameter is not leader and self._leading is not None and self._leading() is optimizer:
            leader = parameter  # which the script has put in the place of the one before
            self._leader = self._leaders[self.training - 1] = weakref.ref(parameter)
        self._num_between += 1
        if leader is not None and parameter is not leader and self._num_between <= MAX_STEPS_BETWEEN:
            return False
        if parameter is not leader:
            self._leader = weakref.ref(parameter)
            self.training = self._training_of(parameter)
        self._num_between = 0
        self._leading = weakref.ref(optimizer)
        return True

    def _training_of(self, parameter: torch.Tensor) -> int:
        """Return which of the trainings so far the parameter leads, or the number of a new one."""
        for number, leader in enumerate(self._leaders, 1):
            if leader() is parameter:
                return number
        self._leaders.append(weakref.ref(parameter))
        return len(self._leaders)

    def note_made(self, optimizer: torch.optim.Optimizer, made_at: str) -> None:
        """Take note of an optimizer that has not stepped yet, but may have states: of a file."""
        self._made[optimizer] = made_at

    def made_at(self, optimizer: torch.optim.Optimizer) -> str:
        """Return `file:line` that made an optimizer of a library's; empty of one whose `step` is the user's."""
        code = innermost_code(type(optimizer).step)
        is_users = code is not None and not is_library(code.co_filename)
        return "" if is_users else self._made.get(optimizer, "")

    def not_begun(self) -> list[tuple[torch.optim.Optimizer, str]]:
        """Return the optimizers that have no states yet, each with the `file:line` that made it."""
        made = [optimizer for optimizer in self._made if hasattr(optimizer, "param_groups")]
        return [(optimizer, self._made[optimizer]) for optimizer in made if not optimizer.state]

    def begin_training(self) -> bool:
        """Return whether an optimizer has been made that trains something else than those that ended steps so far."""
        led = [leader() for leader in self._leaders]
        firsts = [_first_parameter(optimizer) for optimizer in self._made if hasattr(optimizer, "param_groups")]
        return bool(led) and any(first is not None and all(first is not other for other in led) for first in firsts)

    def states(self) -> list[object]:
        """Return what the optimizers keep for each of their parameters."""
        made = [optimizer for optimizer in self._made if hasattr(optimizer, "state")]
        return list(chain.from_iterable(optimizer.state.values() for optimizer in made))


class LeafUpdates:
    """Whether a loop whose optimizers have not stepped has updated what it trains between two backward passes.

    What it trains are the leaves of the graph. A version that rises, a gradient that is gone, or other tensors in
    their place show an update; else, until one of these has, the values of the smallest leaf are compared, which waits
    for the device.
    """

    def __init__(self, *, has_values: bool) -> None:
        self._leaves: list[tuple[weakref.ref[torch.Tensor], int, bool]] = []
        """each with its version, and whether it had a gradient"""
        self._value: tuple[weakref.ref[torch.Tensor], float] | None = None
        self._shows_without_values = not has_values

    def have_changed(self) -> bool:
        """Return whether there was an update since `note`, of what is still there."""
        return self.are_updated([leaf for reference, *_ in self._leaves if (leaf := reference()) is not None])

    def are_updated(self, leaves: list[torch.Tensor]) -> bool:
        """Return whether there was an update since `note`, before a pass that leads to these leaves."""
        before = self._leaves
        if not before or not leaves:
            return False
        known = {id(leaf): (version, had_grad) for ref, version, had_grad in before if (leaf := ref()) is not None}
        same = [leaf for leaf in leaves if id(leaf) in known]
        is_updated = not same
        for leaf in same:
            version, had_grad = known[id(leaf)]
            is_updated = is_updated or leaf._version != version or (had_grad and leaf.grad is None)
        self._shows_without_values = self._shows_without_values or is_updated
        return is_updated or self._has_other_value()

    def note(self, leaves: list[torch.Tensor]) -> None:
        """Take note of the leaves at the end of a pass."""
        if leaves:
            self._leaves = [(weakref.ref(leaf), leaf._version, leaf.grad is not None) for leaf in leaves]
            smallest = min(filter(_has_memory, leaves), key=torch.Tensor.numel, default=None)
            if smallest is None or self._shows_without_values:
                self._value = None
            else:
                self._value = (weakref.ref(smallest), _sum(smallest))

    def _has_other_value(self) -> bool:
        leaf = self._value[0]() if self._value else None
        if leaf is None or self._value is None or not _has_memory(leaf):
            return False
        return _sum(leaf) != self._value[1]


def _has_memory(tensor: torch.Tensor) -> bool:
    """Return whether a tensor's values can be read here and now: FSDP2 frees gathered weights under their tensors."""
    return not isinstance(tensor, DTensor) and tensor.untyped_storage().nbytes() > 0


def _sum(tensor: torch.Tensor) -> float:
    with torch.no_grad():
        return float(tensor.sum())


def leaves_of(outputs: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the leaves of the graph behind some tensors, of the first nodes where they are very many."""
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen: set[Any] = set(waiting)
    leaves = []
    while waiting and len(seen) < MAX_NODES:
        node = waiting.pop()
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return leaves


def _first_parameter(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    groups = map(itemgetter("params"), optimizer.param_groups)  # one may be empty
    return next(chain.from_iterable(groups), None)


def is_checkpoint(loaded: Any, depth: int = 3) -> bool:
    """Return whether a file gave the state of a module or of an optimizer, alone or beside other things."""
    if not isinstance(loaded, dict) or depth == 0:
        return False
    if isinstance(loaded, OrderedDict) or {"state", "param_groups"} <= loaded.keys():
        return True
    return any(is_checkpoint(value, depth - 1) for value in loaded.values())


class LoadedTensors:
    """The tensors on the device that the last file gave, and whether the run was restored from them."""

    def __init__(self) -> None:
        self._tensors: list[weakref.ref[torch.Tensor]] = []
        self.loaded_at = ""  # `file:line` of the user's that read the file
        self._of_checkpoint = False  # they are states of a module or an optimizer
        self._restored_at: int | None = None  # step before which a module took its state from them

    def replace(self, tensors: Iterable[torch.Tensor], loaded_at: str, *, of_checkpoint: bool) -> None:
        """Take note of what a file gave."""
        self.loaded_at = loaded_at
        self._tensors = list(map(weakref.ref, tensors))
        self._restored_at = None
        self._of_checkpoint = of_checkpoint

    def note_restored(self, state: Iterable[torch.Tensor], step: int) -> None:
        """Take note of a state that a module takes, which resumes the run where the file gave it."""
        if self._restored_at is not None:
            return
        given = set(map(id, state))
        if any(id(tensor()) in given for tensor in self._tensors):
            self._restored_at = step

    @property
    def are_to_restore(self) -> bool:
        """Whether a module has taken its state from them, or may yet, and they were not looked at since."""
        return bool(self._tensors) and (self._of_checkpoint or self._restored_at is not None)

    def have_settled(self, step: int) -> bool:
        """Return whether the optimizers have made their states since the run was restored."""
        return bool(self._tensors) and self._restored_at is not None and step - self._restored_at == OBSERVED_STEPS

    def take_alive(self) -> list[torch.Tensor]:
        """Return those that are still there, and forget them."""
        references, self._tensors = self._tensors, []
        return [tensor for reference in references if (tensor := reference()) is not None]


class LastOutputs:
    """What models returned in the last evaluation, and in the one before."""

    def __init__(self) -> None:
        self._tensors: deque[weakref.ref[torch.Tensor]] = deque(maxlen=MAX_OUTPUTS)
        self._before: list[weakref.ref[torch.Tensor]] = []

    def begin(self) -> None:
        """Take note that another evaluation begins."""
        self._before = [reference for reference in (*self._before, *self._tensors) if reference() is not None]
        del self._before[:-MAX_OUTPUTS]
        self._tensors.clear()

    def note(self, tensors: Iterable[torch.Tensor]) -> None:
        """Take note of what a call returned."""
        self._tensors.extend(map(weakref.ref, tensors))

    def left(self, *, evaluates: bool) -> list[torch.Tensor]:
        """Return those that are still there of evaluations that are over; `evaluates` where one is running."""
        references = self._before if evaluates else [*self._before, *self._tensors]
        return [tensor for reference in references if (tensor := reference()) is not None]
