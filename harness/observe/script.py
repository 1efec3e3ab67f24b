"""Any script, watched while it runs: phases and steps are inferred from what it calls.

LOAD        until a module that has parameters is called for the first time
DATA        from the end of a step to the forward pass that follows
FORWARD     from the first call of a module in training to `backward`
BACKWARD    from there to the optimizer, or to the next forward pass
OPTIMIZER   inside `step()`; the step is over when it returns
EVAL        a module called in evaluation mode or without gradients; a batch lasts until the same module is called again
GENERATE    from a call of `generate` to whatever comes next
CHECKPOINT  from `state_dict()`, or a copy of the model, to the end of `torch.save`

Nothing of the script is changed. Calls of PyTorch that tell where the script is are wrapped while it runs.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import linecache
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import CodeType, FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import (
    BatchShape,
    EndRecord,
    ForwardFacts,
    Outcome,
    Phase,
    Record,
    SurvivorRecord,
)
from memory_harness.harness.log.source_lines import is_library, short_path
from memory_harness.harness.observe.facts import batch_shape, field_of, model_facts, num_adapters
from memory_harness.harness.observe.own_loop import new_run_record
from memory_harness.harness.observe.recorder import BegunPhase, PhaseRecorder
from memory_harness.harness.observe.survivors import STEP

GENERATE = "generate"
"""begin of the names of functions that are taken to generate"""

OBSERVED_STEPS = 2
"""First steps of an optimizer that are observed: it makes its states in them. Later ones leave nothing, and what they
take for a moment is what they took then."""

MIN_OLD_BYTES = 256 * 1024
"""Least that an earlier model must have to be worth a report."""

LOADED_DEPTH = 8
"""How deeply a checkpoint's tensors are nested: an optimizer's states in a dictionary of dictionaries take five."""

MAX_FRAMES = 24
"""Frames looked at for a function that generates, from the model's call outwards."""

SETTLED_STEPS = 6
"""Steps before the collector is asked: earlier there is little that could wait for it."""

_GROWING = (STEP, Phase.EVAL)
"""Units whose survivors the collector is asked about: it may free them."""

_TO_CPU = re.compile(r"""\.to\(\s*(device\s*=\s*)?["']cpu["']""")

_Call = Callable[..., Any]


class Watch:
    """Infers where a script is, and lets a `PhaseRecorder` write it down.

    Args:
        device: whose memory is read.
        write: takes each record.
        script: its name, for the log.
    """

    def __init__(self, device: ObservableDevice, write: Callable[[Record], None], script: str) -> None:
        self.device = device
        self.recorder = PhaseRecorder(device, self._write)
        self.recorder.epoch = 1
        self._write_out = write
        self._run = dataclasses.replace(new_run_record(device), script=script)
        self._thread = threading.get_ident()
        self._phase: Phase | None = None
        self._begun: BegunPhase | None = None
        self._depth = 0
        """calls of modules, of `backward` or of `generate` that are running, one inside the other"""
        self._optimizers: weakref.WeakKeyDictionary[torch.optim.Optimizer, tuple[int, int]] = (
            weakref.WeakKeyDictionary()
        )
        """steps that each has made with the same number of states, and that number"""
        self._unobserved = ExitStack()
        self._known_modules: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()
        """modules that were called from outside, and whether they have parameters"""
        self._trained: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        """modules in evaluation mode whose output was propagated back: they are trained that way"""
        self._batch_module: weakref.ref[torch.nn.Module] | None = None
        """whose calls count the batches of the running evaluation"""
        self._index = 0
        self._leader: weakref.ref[torch.Tensor] | None = None
        """parameter whose optimizer ends the steps, where there are several"""
        self._loaded: list[weakref.ref[torch.Tensor]] = []
        """tensors on the device that the last file gave"""
        self._resumed_at: int | None = None
        """step before which a module took its state from them"""
        self._steps_elsewhere = 0
        self._leaders: list[weakref.ref[torch.Tensor]] = []
        """the leading parameters of all trainings so far"""
        self._calls: weakref.WeakKeyDictionary[torch.nn.Module, tuple[int, int]] = weakref.WeakKeyDictionary()
        """steps in which each module was first trained and last called, of those called from outside"""
        self._has_optimizer = self._has_stepped = False
        self._has_failed = False
        """an allocation did, and no forward pass has begun since"""
        self._step_ended = False
        self._step_began = time.perf_counter()
        self._shapes: list[BatchShape] = []
        self._floor: BegunPhase | None = None
        """what began when the last step was over, while nothing but single calls without gradients followed it"""
        self._loader_began = False
        self._first_epoch = True
        self._grew = False
        self._has_saved = False
        self._largest_model = 0
        self._patches = ExitStack()

    def _write(self, record: Record) -> None:
        self._grew = self._grew or (isinstance(record, SurvivorRecord) and record.unit in _GROWING)
        self._write_out(record)

    def _switch(self, phase: Phase, batch: BatchShape | None = None, index: int = 0) -> None:
        """End the phase that is running, and begin another."""
        self._unobserved.close()  # a step that failed did not say that it is over
        self._end_phase()
        self._phase = phase
        self._begun = self.recorder.begin_phase(phase, batch, index)

    def _end_phase(self, *, void: bool = False) -> None:
        """Write what the running phase took, unless it turned out to be none."""
        begun, self._begun, self._phase = self._begun, None, None
        # a state that nobody saved was read for another reason
        unsaved = begun is not None and begun.phase is Phase.CHECKPOINT and not self._has_saved
        if begun is not None and not void and not unsaved:
            self.recorder.end_phase(begun)

    # What the script does

    @property
    def _is_elsewhere(self) -> bool:
        """Whether this call is part of another one that is known, or of another thread."""
        return self._depth > 0 or threading.get_ident() != self._thread

    def call_module(self, call: _Call, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a module; the outermost one says what the script is doing."""
        known = self._known_modules.get(module)
        if known is None:
            known = self._meet(module)
        if not known:
            return call(module, *args, **kwargs)
        self._begin_call(module, args, kwargs)
        self._depth += 1
        try:
            output = call(module, *args, **kwargs)
        finally:
            self._depth -= 1
        if self._phase is Phase.EVAL:
            self.recorder.forward_facts = _facts(module, output)
        elif self._phase is Phase.FORWARD and hasattr(module, "peft_config"):
            self.recorder.forward_facts = ForwardFacts(True, 0, 0, num_adapters(module))
        return output

    def _meet(self, module: torch.nn.Module) -> bool:
        """Take note of a module that is called for the first time."""
        parameters = list(module.parameters())
        if any(is_lazy(parameter) for parameter in parameters):
            return True  # it will have sizes at its next call
        self._known_modules[module] = bool(parameters)
        if parameters:
            self.device.adopt([*parameters, *module.buffers()])
            self._wrap_generators(type(module))
            size = sum(p.numel() for p in parameters)
            if size > self._largest_model:
                self._largest_model = size
                self._describe(model=model_facts(module))
        return bool(parameters)

    def _begin_call(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        self.device.adopt(values)
        graph = torch.is_grad_enabled()
        trains = graph and (module.training or module in self._trained)
        if trains or module in self._calls:
            self._calls[module] = (self._calls.get(module, (self.recorder.step + 1,))[0], self.recorder.step + 1)
        if trains:
            if self._phase is not Phase.FORWARD:
                self._begin_forward(_batch_of(values))
            return
        if self._phase is Phase.FORWARD and not graph:
            return  # a target or a reward, in the middle of a training pass
        if generator := _running_generator():
            self._begin_generate(generator, values)
        else:
            self._begin_evaluation(module, values)

    def _begin_forward(self, batch: BatchShape | None) -> None:
        self._begin_micro_step()
        if self._has_failed:
            self._has_failed = False
            self.recorder.note_failure_kept()
        if batch is not None:
            self._shapes.append(batch)
        self._switch(Phase.FORWARD, batch)

    def _begin_micro_step(self) -> None:
        """End what came before: a step, the preparation of this one, or an evaluation."""
        recorder = self.recorder
        if self._phase is Phase.BACKWARD and not self._has_stepped and not self._has_optimizer:
            self._end_phase()
            self._end_step(0.0)
        if self._step_ended or recorder.step == 0:
            if self._phase is not Phase.DATA:
                self._end_phase()
            recorder.step += 1
            recorder.micro_step = 0
            self._step_ended = False
            self._shapes = []
            self._step_began = time.perf_counter()
            if self._loader_began and not self._first_epoch:
                recorder.epoch += 1
            self._loader_began = self._first_epoch = False
            if self._phase is Phase.DATA:
                self._end_phase()
            elif self._floor is not None:  # a single call lay between: part of the step, with what is left of it
                self._end_phase()
                recorder.forward_facts = None
                recorder.end_phase(self._floor)
        elif self._phase is Phase.BACKWARD:
            recorder.micro_step += 1
        self._floor = None

    def _begin_evaluation(self, module: torch.nn.Module, values: list[Any]) -> None:
        """Begin a batch where this module's call begins one."""
        own = self._batch_module() if self._batch_module else None
        if self._phase is Phase.EVAL and own is not None and own is not module:
            return
        self._index = self._index + 1 if self._phase is Phase.EVAL else 0
        if self._index > 0:
            self._floor = None  # more than one call: an evaluation, which answers for what it leaves
        self._loader_began = self._loader_began and self.recorder.step == 0
        self._leave_gap()
        self._batch_module = weakref.ref(module)
        self._switch(Phase.EVAL, _batch_of(values), self._index)

    def _leave_gap(self) -> None:
        """End what follows a step, where it is not the preparation of the next one."""
        if self._phase is Phase.DATA:
            self._end_phase(void=True)

    def generate(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function that generates."""
        if self._is_elsewhere:
            return call(*args, **kwargs)
        self._begin_generate(None, [*args, *kwargs.values()])
        self._depth += 1
        try:
            return call(*args, **kwargs)
        finally:
            self._depth -= 1

    def _begin_generate(self, code: CodeType | None, values: list[Any]) -> None:
        """Begin a call; one that was not seen to begin goes on as long as there is no other."""
        if code is not None:
            if self._phase is Phase.GENERATE:
                return
            self._wrap_function(code)
        index = self._index + 1 if self._phase is Phase.GENERATE else 0
        self._leave_gap()
        self._floor = None
        self._index = index
        self._switch(Phase.GENERATE, _batch_of(values), index)

    def backward(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Propagate back."""
        if self._is_elsewhere:
            return call(*args, **kwargs)
        if self._phase is not Phase.BACKWARD:
            self._begin_backward()
        self._depth += 1
        try:
            return call(*args, **kwargs)
        finally:
            self._depth -= 1

    def _begin_backward(self) -> None:
        if self._phase is Phase.EVAL:  # a model that is trained in evaluation mode
            module = self._batch_module() if self._batch_module else None
            if module is not None:
                self._trained.add(module)
            self.recorder.forward_facts = None
            self._begin_micro_step()
        elif self._phase is not Phase.FORWARD:
            self._begin_micro_step()
        self._switch(Phase.BACKWARD, self._shapes[-1] if self._shapes else None)

    def begin_optimizer(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An optimizer's step begins; with a closure it holds the whole training step."""
        if self._is_elsewhere:
            return
        if self._step_ended or self.recorder.step == 0:
            self._begin_micro_step()
        self._switch(Phase.OPTIMIZER)
        if self._is_settled(optimizer) and len(args) < 2 and not kwargs:  # no closure
            self._unobserved.enter_context(self.device.unobserved())

    def _is_settled(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether an optimizer of PyTorch's has done what it does now before, and so will leave nothing."""
        seen, num_states = self._optimizers.get(optimizer, (0, 0))
        same = len(optimizer.state) == num_states
        self._optimizers[optimizer] = (seen + 1 if same else 1, len(optimizer.state))
        return seen >= OBSERVED_STEPS and same and type(optimizer).__module__.startswith("torch.optim.")

    def end_optimizer(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An optimizer's step is over, and with the leading one's the training step."""
        if self._is_elsewhere:
            return
        self._has_stepped = True
        self._unobserved.close()
        self._end_phase()
        if self._leads(optimizer):
            rate = optimizer.param_groups[0].get("lr", 0.0)
            self._end_step(float(rate))
        self._switch(Phase.DATA)
        self._floor = self._begun

    def make_optimizer(self, make: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """An optimizer is made: steps will end with its, and no longer with `backward`."""
        self._has_optimizer = True
        make(*args, **kwargs)

    def _leads(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether a step ends with this optimizer: the one that stepped first, or another that has its parameters."""
        # a group may be empty, and some optimizers have nothing to do
        first = next((p for group in optimizer.param_groups for p in group["params"]), None)
        if first is None:
            return False
        leader = self._leader() if self._leader else None
        self._steps_elsewhere += 1
        if leader is None or first is leader or self._steps_elsewhere > 4:
            if first is not leader:
                self._leader = weakref.ref(first)
                self.recorder.training = self._training_of(first)
            self._steps_elsewhere = 0
            return True
        return False

    def _training_of(self, parameter: torch.Tensor) -> int:
        """Return which of the trainings so far the parameter leads, or the number of a new one."""
        known = [number for number, leader in enumerate(self._leaders, 1) if leader() is parameter]
        if not known:
            self._leaders.append(weakref.ref(parameter))
        return known[0] if known else len(self._leaders)

    def _end_step(self, learning_rate: float) -> None:
        recorder = self.recorder
        seconds = time.perf_counter() - self._step_began
        recorder.end_step(self._shapes, None, None, learning_rate, seconds)
        self._step_ended = True
        if self._loaded and self._resumed_at is not None and recorder.step - self._resumed_at == OBSERVED_STEPS:
            self._note_checkpoint_kept()
        if self._grew and recorder.step >= SETTLED_STEPS:
            # here, amid the loop: at the end of the script the collector frees models and all
            self._grew = False
            recorder.probe("gc", gc.collect)
            recorder.probe("autocast_cache", torch.clear_autocast_cache)

    def save(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Write a checkpoint."""
        if self._is_elsewhere or self._phase in (Phase.LOAD, None):
            return call(*args, **kwargs)
        self._begin_checkpoint()
        self._depth += 1
        try:
            return call(*args, **kwargs)
        finally:
            self._depth -= 1
            self._has_saved = True
            self._switch(Phase.DATA)
            self._has_saved = False

    def state_dict(self, call: _Call, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return a module's state, which may be the begin of a checkpoint."""
        if self._is_elsewhere or args or "destination" in kwargs or self._phase in (Phase.LOAD, None):
            return call(module, *args, **kwargs)
        self._begin_checkpoint()
        self._depth += 1
        try:
            return call(module, *args, **kwargs)
        finally:
            self._depth -= 1

    def copy(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Copy something; of a model it may be the begin of a checkpoint."""
        is_model = bool(args) and isinstance(args[0], torch.nn.Module) and self._known_modules.get(args[0], False)
        if is_model and not self._is_elsewhere and self._phase not in (Phase.LOAD, None):
            self._begin_checkpoint()
        return call(*args, **kwargs)

    def load(self, call: _Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Read a file, and take note of the tensors that lie on the device then."""
        where = kwargs.get("map_location", args[1] if len(args) > 1 else None)
        if self._is_elsewhere:
            return call(*args, **kwargs)
        on_host = isinstance(where, (str, torch.device)) and torch.device(where).type == "cpu"
        with self.device.on_host() if on_host else nullcontext():
            loaded = call(*args, **kwargs)
        if not on_host:
            tensors = _tensors(loaded, LOADED_DEPTH)
            self.device.adopt(tensors)
            self._loaded = [weakref.ref(tensor) for tensor in tensors]
            self._resumed_at = None
        return loaded

    def load_state_dict(
        self, call: _Call, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Restore a module's state, which is a resumption where a file gave it."""
        state = kwargs.get("state_dict", args[0] if args else {})
        given = {id(tensor) for tensor in _tensors(state)}
        if self._resumed_at is None and any(id(tensor()) in given for tensor in self._loaded):
            self._resumed_at = self.recorder.step
        return call(module, *args, **kwargs)

    def _note_checkpoint_kept(self) -> None:
        """Report what was loaded, has been restored from, and still lies on the device beside what it went into."""
        in_use = {self.device.handle_of(t) for module in self._known_modules for t in module.state_dict().values()}
        in_use |= {self.device.handle_of(t) for o in self._optimizers for t in _tensors(list(o.state.values()))}
        alive = [tensor for tensor in (reference() for reference in self._loaded) if tensor is not None]
        kept = [t for t in alive if self.device.handle_of(t) not in in_use | {None}]
        self._loaded = []
        if sum(map(_num_bytes, kept)) >= MIN_OLD_BYTES:
            self.recorder.note_checkpoint_kept(kept)

    def _begin_checkpoint(self) -> None:
        if self._phase is not Phase.CHECKPOINT:
            self._leave_gap()
            self._switch(Phase.CHECKPOINT)

    def begin_loader(self) -> None:
        """A pass over a data loader begins; over the training data it is an epoch."""
        self._loader_began = True

    # Functions that generate

    def _wrap_generators(self, cls: type) -> None:
        """Let each call of a class's own `generate` be seen."""
        for owner in cls.__mro__:
            for name, function in list(vars(owner).items()):
                if name.startswith(GENERATE) and callable(function) and hasattr(function, "__code__"):
                    self._wrap(owner, name, function)

    def _wrap_function(self, code: CodeType) -> None:
        """Let further calls of a function be seen, wherever a module of the user's refers to it."""
        for module in list(sys.modules.values()):
            function = getattr(module, "__dict__", {}).get(code.co_name)
            if _innermost_code(function) is code and not is_library(code.co_filename):
                self._wrap(module, code.co_name, function)

    def _wrap(self, owner: Any, name: str, function: Any) -> None:
        if function.__code__ is not _WRAPPER:
            self._patches.enter_context(patch.object(owner, name, _wrapped(function, self.generate)))

    # The run as a whole

    def _describe(self, **changes: Any) -> None:
        self._run = dataclasses.replace(self._run, **changes)
        self._write_out(self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, this thread's script is watched. The caller says by `end` how it ended."""
        self._write_out(self._run)
        self.device.on_out_of_memory(self._note_out_of_memory)
        self._switch(Phase.LOAD)
        with self._patches:
            for target, name, wrapper in _wrappers(self):
                self._patches.enter_context(patch.object(target, name, wrapper))
            self._patches.callback(register_optimizer_step_pre_hook(self.begin_optimizer).remove)
            self._patches.callback(register_optimizer_step_post_hook(self.end_optimizer).remove)
            with self.device.active():
                yield

    def _note_old_models(self) -> None:
        """Report models that were trained before the present one, and called no more since it is."""
        began = max((first for first, _ in self._calls.values()), default=0)
        if self.recorder.training == 1 or began == 0:
            return
        # parameters that the present one has taken over are its own
        taken = {id(p) for module, (_, last) in self._calls.items() if last >= began for p in module.parameters()}
        for module in [module for module, (_, last) in self._calls.items() if last < began]:
            own = [p for p in module.parameters() if id(p) not in taken]
            tensors = [t for p in own for t in (p, p.grad) if t is not None and self.device.handle_of(t) is not None]
            num_bytes = sum(_num_bytes(t) for t in tensors)
            if num_bytes >= MIN_OLD_BYTES:
                self.recorder.note_old_model(module, num_bytes)

    def _note_out_of_memory(self, error: DeviceOutOfMemory) -> None:
        self._note_old_models()
        self._has_failed = True
        self.recorder.vocab_size = self._run.model.vocab_size if self._run.model else 0
        self.recorder.out_of_memory(error)

    def settle(self) -> None:
        """Finish what is looked at: the script has run to its end, and what it holds will go."""
        self._end_phase(void=self._phase is Phase.DATA)
        self._note_old_models()
        self.recorder.end_run()

    def end(self, outcome: Outcome, message: str, seconds: float) -> None:
        """Close the log."""
        self._end_phase(void=self._phase is Phase.DATA)
        self._describe(total_steps=self.recorder.step)
        self._write_out(EndRecord(outcome, self.recorder.step, seconds, message))


def _wrappers(watch: Watch) -> list[tuple[Any, str, _Call]]:
    """Return what is replaced while a script is watched: owner, name and the function in its place."""
    call_original, state_original = torch.nn.Module.__call__, torch.nn.Module.state_dict
    iterate = DataLoader.__iter__
    main_thread = threading.get_ident()
    get_ident = threading.get_ident

    @functools.wraps(call_original)
    def call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if watch._depth or get_ident() != main_thread:  # spelled out: this runs for every layer
            return call_original(self, *args, **kwargs)
        return watch.call_module(call_original, self, args, kwargs)

    @functools.wraps(state_original)
    def state_dict(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        return watch.state_dict(state_original, self, args, kwargs)

    @functools.wraps(iterate)
    def begin_loader(self: DataLoader[Any]) -> Any:
        watch.begin_loader()
        return iterate(self)

    to_host = torch.Tensor.cpu

    @functools.wraps(to_host)
    def cpu(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Where CPU tensors stand for the card's, this is what takes one off the card."""
        if watch.device.torch_device.type != "cpu" or isinstance(self, torch.nn.Parameter):
            return to_host(self, *args, **kwargs)
        with watch.device.on_host():
            return to_host(self, *args, **kwargs).clone()

    convert = torch.Tensor.to

    @functools.wraps(convert)
    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`.to("cpu")` does what `.cpu()` does, but not `.to(device)`, by which scripts without a GPU mean the card."""
        where = args[0] if args else kwargs.get("device")
        if isinstance(where, str) and where == "cpu" and _says_cpu(sys._getframe(1)):
            return convert(cpu(self), *args, **kwargs)
        return convert(self, *args, **kwargs)

    load_original = torch.nn.Module.load_state_dict

    @functools.wraps(load_original)
    def load_state_dict(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        return watch.load_state_dict(load_original, self, args, kwargs)

    return [
        (torch.Tensor, "cpu", cpu),
        (torch.Tensor, "to", to),
        (torch.optim.Optimizer, "__init__", _wrapped(torch.optim.Optimizer.__init__, watch.make_optimizer)),
        (torch, "load", _wrapped(torch.load, watch.load)),
        (torch.nn.Module, "load_state_dict", load_state_dict),
        (torch.nn.Module, "__call__", call),
        (torch.nn.Module, "state_dict", state_dict),
        (DataLoader, "__iter__", begin_loader),
        (torch.autograd, "backward", _wrapped(torch.autograd.backward, watch.backward)),
        (torch.autograd, "grad", _wrapped(torch.autograd.grad, watch.backward)),
        (torch, "save", _wrapped(torch.save, watch.save)),
        (copy, "deepcopy", _wrapped(copy.deepcopy, watch.copy)),
    ]


def _says_cpu(frame: FrameType) -> bool:
    """Tell whether the line that a frame is at names the CPU itself."""
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return not is_library(frame.f_code.co_filename) and bool(_TO_CPU.search(code))


def _wrapped(function: _Call, handler: _Call) -> _Call:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return handler(function, args, kwargs)

    return call


_WRAPPER = _wrapped(print, print).__code__
"""what all wrapped functions have in common"""


def _innermost_code(function: Any) -> CodeType | None:
    """Return the code of a function behind its decorators, such as `torch.no_grad()`; None where it has none."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)


def _running_generator() -> CodeType | None:
    """Return the outermost function that generates among those that led to the model's call, or None."""
    found: CodeType | None = None
    for frame in _frames():
        if frame.f_code.co_name.startswith(GENERATE):
            found = frame.f_code
    return found


def _frames() -> Iterator[FrameType]:
    """Yield the frames that led here, innermost first, those of the harness left out."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _calling_line() -> str | None:
    """Return `file:line` of the user's innermost frame."""
    for frame in _frames():
        path = frame.f_code.co_filename
        if not is_library(path):
            return f"{short_path(path)}:{frame.f_lineno}"
    return None


def _batch_of(values: list[Any]) -> BatchShape | None:
    """Return the shape of what a module is called with; padding is not looked for, which would read from the device."""
    values = [*values, *(v for value in values if isinstance(value, dict) for v in value.values())]
    first = next((v for v in values if isinstance(v, torch.Tensor) and v.dim()), None)
    if first is None:
        return None
    if first.dim() == 2 and first.is_floating_point():  # samples and their features, not tokens
        return BatchShape(len(first), 1, (), 0)
    shape = batch_shape(first)
    return None if shape is None else dataclasses.replace(shape, lengths=())


def _facts(module: torch.nn.Module, output: Any) -> ForwardFacts:
    """Return how an evaluation's forward pass was made, as far as its output tells."""
    tensors = _tensors(output)
    cache = _tensors(field_of(output, "past_key_values"))
    logits = output if isinstance(output, torch.Tensor) else field_of(output, "logits")
    return ForwardFacts(
        has_graph=any(t.grad_fn is not None for t in tensors),
        cache_bytes=sum(_num_bytes(t) for t in cache),
        num_checkpointed_layers=0,
        logits_bytes=_num_bytes(logits) if isinstance(logits, torch.Tensor) else 0,
        num_adapters=num_adapters(module),
        output_bytes=sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values()),
        where=_calling_line(),
    )


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _tensors(value: Any, depth: int = 4) -> list[torch.Tensor]:
    """Return the tensors in an output: nested lists, tuples, dictionaries, and objects such as a cache."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = list(vars(value).values())
    elif hasattr(value, "layers") and not isinstance(value, torch.nn.Module):
        value = [vars(layer) for layer in value.layers]
    if depth and isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item, depth - 1)]
    return []
