"""Any script, observed while it runs: phases and steps are inferred from what it calls.

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
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.utils.checkpoint
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.data import DataLoader

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import (
    ADDED_TO_MODEL,
    AUTOCAST,
    COLLECTED_BY_SCRIPT,
    COLLECTOR,
    CYCLE,
    IN_STEP,
    NEVER_TRAINED,
    OF_WORKERS,
    OPTIMIZER_SETTING,
    BatchShape,
    EndRecord,
    ForwardFacts,
    Outcome,
    Phase,
    PhaseBegin,
    PhaseRecord,
    ProbeRecord,
    Record,
    RetryRecord,
    SurvivorRecord,
)
from memory_harness.harness.log.source_lines import is_library, statement_around
from memory_harness.harness.observe.at_failure import Failure, model_states, write_what_is_there
from memory_harness.harness.observe.caught_failures import CaughtFailures
from memory_harness.harness.observe.cycles import collect_and_look, collections_noted
from memory_harness.harness.observe.facts import (
    called_with_shape,
    channels_of,
    field_of,
    first_tensor,
    forward_facts,
    model_facts,
    num_adapters,
    sizes_of_scores,
    tensors_in,
)
from memory_harness.harness.observe.holders import Holder, kept_by_class
from memory_harness.harness.observe.own_loop import new_run_record
from memory_harness.harness.observe.recorder import BegunPhase, PhaseRecorder
from memory_harness.harness.observe.run_script import message_of
from memory_harness.harness.observe.sampling import StepSampling
from memory_harness.harness.observe.script_objects import (
    Addition,
    LastOutputs,
    LeafUpdates,
    LoadedTensors,
    ModelChanges,
    ModuleCalls,
    OptimizerSteps,
    is_checkpoint,
    leaves_of,
    line_that_trains_more,
    places_of_settings,
)
from memory_harness.harness.observe.script_patches import (
    GENERATE,
    Arguments,
    Call,
    Keywords,
    Patch,
    autocast_around,
    cache_in_frames,
    calling_line,
    innermost_code,
    is_observed,
    line_that_called,
    loads_to_host,
    making_line,
    observed,
    patches_of_tensors,
    running_generator,
    unseen_by_compiler,
)
from memory_harness.harness.observe.script_threads import running_frame, thread_patches, waits_or_has_ended
from memory_harness.harness.observe.survivors import STEP
from memory_harness.harness.observe.thinning import LogThinning

MIN_OLD_BYTES = 256 * 1024  # least that an earlier model, or a file's tensors, must have to be worth a report
MANY_TRAININGS = 6  # one after another, after which models of earlier ones are looked for
LOADED_DEPTH = 8  # nesting of a checkpoint's tensors: an optimizer's states in a dictionary of dictionaries take five
MAX_FAILURES_LOOKED_AT = 8  # each asks the collector for all objects, which takes a second with libraries
MIN_GARBAGE_BYTES = 64 * 1024  # freed by the collector on its own before garbage is looked at
STEPS_OF_GARBAGE = 3  # that are waited for, so that there is some
PADDING_STEPS = 64  # first steps in which the padding of batches is looked at, which waits for the device
SETTLED_STEPS = 6  # steps before the collector is asked: earlier there is little that could wait for it
NON_REENTRANT = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
"""what `checkpoint` calls with use_reentrant=False: since PyTorch 2.14, and before"""
LAMBDA = "<lambda>"  # name of a function that is part of a statement
_GROWING = (STEP, Phase.EVAL)  # units whose survivors the collector is asked about: it may free them


class RunningCall(NamedTuple):
    """A call of a module by the script itself."""

    module: weakref.ref[torch.nn.Module]
    has_graph: bool  # gradients were enabled when it began
    batch_at: str | None  # `file:line` that made what it was called with


class ScriptObserver:
    """Infers where a script is, and lets a `PhaseRecorder` write it down; `script` is its name, for the log."""

    def __init__(self, device: ObservableDevice, write: Callable[[Record], None], script: str) -> None:
        self.device = device
        self.call_depth = 0  # calls of modules, of `backward` or of `generate` that are running, one inside the other
        self._phase_recorder = PhaseRecorder(device, self._write)
        self._phase_recorder.epoch = 1
        self._write_out = LogThinning(write).write
        self._run = dataclasses.replace(new_run_record(device), script=script)
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self.on_exit: Callable[[int], int] | None = (
            None  # told of `os._exit` and its code; returns the code to exit with
        )
        self._patches = ExitStack()
        self._phase: Phase | None = None
        self._begun: BegunPhase | None = None
        self._index = 0  # of the running evaluation batch or call of `generate`

        self._returned = weakref.WeakSet[torch.nn.Module]()  # modules of which an output has been looked at
        self._has_parameters = weakref.WeakKeyDictionary[torch.nn.Module, bool]()  # of modules called from outside
        self._channels = weakref.WeakKeyDictionary[torch.nn.Module, int]()  # that each takes before positions
        self._trained = weakref.WeakSet[torch.nn.Module]()  # in evaluation mode: their output was propagated back
        self._batch_module: weakref.ref[torch.nn.Module] | None = None  # its calls count the batches of an evaluation
        self._module_calls = ModuleCalls()
        self._changes = ModelChanges()
        self._num_passes = 0  # of the model since the last backward pass
        self._outputs = LastOutputs()
        self._num_checkpointed = 0  # calls of `checkpoint` in the running forward pass
        self._has_checkpointed = False
        self._checkpointing = weakref.WeakSet[torch.nn.Module]()
        self._looked_at_step = 0  # in which the trained model was last looked at for additions
        self._largest_model = 0  # parameters of the largest module so far, which the run record is about

        self._optimizers = OptimizerSteps()
        self._optimizer_at = ""  # `file:line` that made the one that stepped last
        self._has_optimizer = self._has_stepped = False
        self._next_old_models = MANY_TRAININGS  # training at which models of earlier ones are looked for
        self._unobserved = ExitStack()  # open while an optimizer steps whose allocations are known
        self._sampling = StepSampling(device)

        self._step_ended = False
        self._step_began = time.perf_counter()
        self._shapes: list[BatchShape] = []  # of the running step's micro-batches
        self._since_step: BegunPhase | None = None
        """what began when the last step was over, while nothing but single calls without gradients followed it"""
        self._loader_began = self._has_told_dataset = False
        self._first_epoch = True

        self._loaded = LoadedTensors()
        self._has_saved = False
        self._running: RunningCall | None = None  # the last one, of the outermost module
        self._has_failed = False  # an allocation did, and no forward pass has begun since
        self._num_failures_looked_at = 0
        self._caught = CaughtFailures()
        self._has_called = False  # the observed thread did a module, or propagated back
        self._has_values = device.computes
        self._leaves = LeafUpdates(has_values=device.computes)
        self._steps_at_each_pass = False
        self.thread_end: tuple[Outcome, str] | None = None  # how the observed thread died, where it is not the main one
        self._has_grown = False  # memory did, and the collector has not been asked since
        self._collections: list[ProbeRecord] = []  # runs of the collector that freed something, since the last step
        self._asks_collector = False  # while it does, its runs are written down otherwise
        self._script_collects = False
        self._num_collected_bytes = 0
        self._has_looked = False
        self._look_at: int | None = None  # step after which garbage is looked at, as the collector has freed some

    def _write(self, record: Record) -> None:
        if isinstance(record, SurvivorRecord) and record.unit in _GROWING:
            self._has_grown = True
        if not (self._sampling.hides_phases and isinstance(record, (PhaseBegin, PhaseRecord))):
            self._write_out(record)

    def _switch_to(self, phase: Phase, batch: BatchShape | None = None, index: int = 0) -> None:
        """End the phase that is running, and begin another."""
        self._unobserved.close()  # a step that failed did not say that it is over
        self._end_phase()
        self._phase = phase
        self._sampling.begin_phase(phase, batch, index)
        self.device.note_origins(on=phase in (Phase.LOAD, Phase.DATA))
        if not self._sampling.is_resting:
            self._begun = self._phase_recorder.begin_phase(phase, batch, index)

    def _end_phase(self) -> None:
        """Write what the running phase took."""
        begun = self._begun
        # a state that nobody saved was read for another reason
        is_unsaved = self._phase is Phase.CHECKPOINT and not self._has_saved and not self._has_failed
        self._begun = self._phase = None
        if begun is not None and not is_unsaved:
            self._phase_recorder.end_phase(begun)

    def _drop_data(self) -> None:
        """Forget what follows a step, where it is not the preparation of the next one."""
        if self._phase is Phase.DATA:
            self._begun = self._phase = None

    # What the script calls

    @property
    def _is_elsewhere(self) -> bool:
        """Whether this call is part of another one that is known, or of a thread that is not observed."""
        return self.call_depth > 0 or (threading.get_ident() != self._thread and not self._takes_over())

    def _takes_over(self) -> bool:
        """Observe this thread from now on where the one so far has ended, waits or never called a module."""
        if os.getpid() != self._process or (self._has_called and not waits_or_has_ended(self._thread)):
            return False
        self._thread = threading.get_ident()
        return True

    @contextmanager
    def _inside_call(self) -> Iterator[None]:
        """Within, calls are part of the one that is known."""
        self.call_depth += 1
        try:
            yield
        finally:
            self.call_depth -= 1

    def call_module(self, call: Call, module: torch.nn.Module, args: Arguments, kwargs: Keywords) -> Any:
        """Call a module; the outermost one says what the script is doing."""
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return call(module, *args, **kwargs)  # inside `torch.func`, whose tensors have no memory to look at
        has_parameters = self._has_parameters.get(module)
        if has_parameters is None:
            has_parameters = self._note_new_module(module)
        if not has_parameters:
            return call(module, *args, **kwargs)
        self._has_called = True
        self._begin_call(module, [*args, *kwargs.values()])
        with self._inside_call():
            output = call(module, *args, **kwargs)
        if module not in self._returned:
            self._returned.add(module)
            self._note_sizes_of_scores(module, output)
        if self._sampling.is_resting:
            return output
        if self._phase is Phase.EVAL:
            self._phase_recorder.forward_facts = _evaluation_facts(module, output)
            if self._module_calls.has_trained(module):
                self._outputs.note(tensors_in(output))
        elif self._phase is Phase.FORWARD and (self._has_checkpointed or hasattr(module, "peft_config")):
            self._phase_recorder.forward_facts = self._training_facts(module)
        return output

    def _note_sizes_of_scores(self, module: torch.nn.Module, output: Any) -> None:
        """Take note of the vocabulary of the model that is told of, where its layers do not show it."""
        facts = self._run.model
        is_told_of = sum(parameter.numel() for parameter in module.parameters()) == self._largest_model
        if facts is not None and is_told_of and not facts.vocab_size:
            vocab_size, hidden_size = sizes_of_scores(module, output)
            self._describe(model=dataclasses.replace(facts, vocab_size=vocab_size, hidden_size=hidden_size))

    def _training_facts(self, module: torch.nn.Module) -> ForwardFacts:
        """Return how a training forward pass was made, so far."""
        switched_at = None
        if self._num_checkpointed:
            self._changes.forget_switches()
            self._checkpointing.add(module)
        elif self._has_checkpointed:
            switched_at = self._changes.switched_at()
            if switched_at is None and module not in self._checkpointing:  # another model has taken its place
                switched_at = self._changes.made_at(module)
        facts = ForwardFacts(True, 0, self._num_checkpointed, num_adapters(module))
        return dataclasses.replace(facts, switched_at=switched_at)

    def checkpoint(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Take note of a part of a forward pass whose activations are not kept."""
        self._num_checkpointed += 1
        self._has_checkpointed = True
        return call(*args, **kwargs)

    def set_attribute(self, call: Call, args: Arguments, kwargs: Keywords) -> None:
        """Take note of a switch of a module that is flipped, once layers are checkpointed."""
        if self._has_checkpointed and len(args) == 3 and isinstance(args[2], bool):
            module, name, value = args
            before = vars(module).get(name)
            if isinstance(before, bool) and before is not value:
                self._changes.note_switch(module, name, before, calling_line() or "")
        call(*args, **kwargs)

    def register_parameter(self, call: Call, args: Arguments, kwargs: Keywords) -> None:
        """Take note of who makes a parameter once there is a model that has been called."""
        call(*args, **kwargs)
        parameter = kwargs.get("param", args[-1])
        if self._has_called and isinstance(parameter, torch.Tensor):
            self._changes.note_parameter(parameter, making_line())

    def _note_new_module(self, module: torch.nn.Module) -> bool:
        """Take note of a module that is called for the first time; return whether it has parameters."""
        parameters = list(module.parameters())
        self._channels[module] = 0
        if any(map(is_lazy, parameters)):
            return True  # it will have sizes at its next call
        self._has_parameters[module] = bool(parameters)
        self._channels[module] = channels_of(module)
        if not parameters:
            return False
        self.device.adopt([*parameters, *module.buffers()])
        self._phase_recorder.known_models.note_module(module)
        self._observe_generators(type(module))
        self._sampling.begin_again()
        size = sum(parameter.numel() for parameter in parameters)
        if size > self._largest_model:
            self._largest_model = size
            facts = model_facts(module)
            if 0 < facts.num_adapter_parameters < facts.num_trainable_parameters:
                facts = dataclasses.replace(facts, trains_also_at=line_that_trains_more(module))
            self._describe(model=facts, settings_at=places_of_settings(), rank=_rank())
        return True

    def _begin_call(self, module: torch.nn.Module, values: list[Any]) -> None:
        self.device.adopt(values)
        has_graph = torch.is_grad_enabled()
        self._running = RunningCall(weakref.ref(module), has_graph, self._origin_of(values))
        trains = has_graph and (module.training or module in self._trained)
        self._note_done_again(self._caught.note_call(module, values, "training" if trains else "evaluation"))
        self._module_calls.note(module, self._phase_recorder.step + 1, trains=trains)
        if trains:
            self._num_passes += 1
            if self._phase is not Phase.FORWARD:
                self._begin_forward(self._shape_of(module, values))
            self._note_additions(module)
            return
        if self._phase is Phase.FORWARD and not has_graph:
            return  # a target or a reward, in the middle of a training pass
        generator = running_generator()
        if generator is None:
            self._begin_evaluation(module, values)
        elif self._phase is not Phase.GENERATE:  # one that was not seen to begin goes on as long as there is no other
            self._observe_function(generator)
            self._begin_generate(values)

    def _origin_of(self, values: list[Any]) -> str | None:
        """Return `file:line` of the user's that made what a module is called with, where it is known."""
        tensor = None if self._sampling.is_resting else first_tensor(values)
        origin = None if tensor is None else self.device.origin_of(tensor)
        if origin is None:
            return None
        if origin.function == LAMBDA:
            origin = origin._replace(line=statement_around(origin.path, origin.line))
        return origin.place

    def _shape_of(self, module: torch.nn.Module, values: list[Any]) -> BatchShape | None:
        """Return the shape of a training batch; its padding is looked for where nothing waits for that, or seldom."""
        if self._sampling.is_resting:
            return called_with_shape(values, channels=self._channels[module])
        with self.device.on_host():
            with_lengths = self._has_values and self._phase_recorder.step < PADDING_STEPS
            return called_with_shape(values, with_lengths=with_lengths, channels=self._channels[module])

    def _note_additions(self, module: torch.nn.Module) -> None:
        """Report parameters that the trained model has got since the step before."""
        step = self._phase_recorder.step
        if self._looked_at_step == step:
            return
        self._looked_at_step = step
        added = self._changes.added_to(module)
        if added is not None:
            self._write_addition(module, added, Phase.FORWARD)

    def _note_additions_in_evaluation(self, module: torch.nn.Module) -> None:
        """Report the same of a model that is only evaluated, whose parameters are known to have been made for it."""
        added = self._changes.added_to(module)
        if added is not None and added.made_at:
            self._write_addition(module, added, Phase.EVAL)

    def _write_addition(self, module: torch.nn.Module, added: Addition, phase: Phase) -> None:
        model = f"the model {type(module).__name__}"
        sizes = added.num_bytes, added.num_tensors
        step = self._phase_recorder.step
        self._write(SurvivorRecord(step, phase, added.made_at, model, *sizes, unit=ADDED_TO_MODEL))

    def _begin_forward(self, batch: BatchShape | None) -> None:
        self._begin_micro_step()
        if self._has_failed:
            self._has_failed = False
            self._phase_recorder.survivors.note_failure_kept()
        if batch is not None:
            self._shapes.append(batch)
        self._num_checkpointed = 0
        self._switch_to(Phase.FORWARD, batch)

    def _begin_micro_step(self) -> None:
        """End what came before: a step, the preparation of this one, or an evaluation."""
        if self._phase is Phase.BACKWARD and not self._has_stepped and self._is_updated_by_hand():
            self._end_phase()
            self._end_step(0.0)
        if self._step_ended or self._phase_recorder.step == 0:
            self._begin_step()
        elif self._phase is Phase.BACKWARD:
            self._phase_recorder.micro_step += 1
        self._since_step = None

    def _is_updated_by_hand(self) -> bool:
        """Return whether the pass that is over has led to an update that no optimizer made.

        Where there is none every pass is taken to; one that has yet to step may be meant to after several passes.
        """
        with self.device.on_host():
            return not self._has_optimizer or self._leaves.have_changed()

    def _begin_step(self) -> None:
        phase_recorder = self._phase_recorder
        if self._phase is not Phase.DATA:
            self._end_phase()
        if phase_recorder.step == 0:
            self._changes.forget_parameters()
        phase_recorder.step += 1
        phase_recorder.micro_step = 0
        self._step_ended = False
        self._shapes = []
        self._step_began = time.perf_counter()
        if self._loader_began and not self._first_epoch:
            phase_recorder.epoch += 1
        self._loader_began = self._first_epoch = False
        if self._phase is Phase.DATA:
            self._end_phase()
        elif self._since_step is not None:  # a single call lay between: part of the step, with what is left of it
            phase_recorder.forward_facts = None
            phase_recorder.end_phase(self._since_step)

    def _begin_evaluation(self, module: torch.nn.Module, values: list[Any]) -> None:
        """Begin a batch where this module's call begins one."""
        batch_module = self._evaluated_module()
        if self._phase is Phase.EVAL and batch_module is not None and batch_module is not module:
            return
        self._index = self._index + 1 if self._phase is Phase.EVAL else 0
        if self._index == 0:
            self._note_additions_in_evaluation(module)
            self._outputs.begin()
        else:
            self._since_step = None  # more than one call: an evaluation, which answers for what it leaves
        if self._phase_recorder.step > 0:
            self._loader_began = False
        self._drop_data()
        self._batch_module = weakref.ref(module)
        self._num_checkpointed = 0
        self._switch_to(Phase.EVAL, called_with_shape(values, channels=self._channels[module]), self._index)

    def _evaluated_module(self) -> torch.nn.Module | None:
        return None if self._batch_module is None else self._batch_module()

    def generate(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Call a function that generates."""
        if self._is_elsewhere:
            return call(*args, **kwargs)
        self._begin_generate([*args, *kwargs.values()])
        with self._inside_call():
            return call(*args, **kwargs)

    def _begin_generate(self, values: list[Any]) -> None:
        self._note_done_again(self._caught.note_call(None, values, "generation"))
        self._index = self._index + 1 if self._phase is Phase.GENERATE else 0
        self._drop_data()
        self._since_step = None
        self._switch_to(Phase.GENERATE, called_with_shape(values), self._index)

    def backward(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Propagate back."""
        if self._is_elsewhere or torch._C._functorch.peek_interpreter_stack() is not None:
            return call(*args, **kwargs)  # as in `call_module`
        if not self._has_optimizer and not self._largest_model:
            return self._backward_by_hand(call, args, kwargs)
        if self._phase is not Phase.BACKWARD:
            self._begin_backward()
        may_step_by_hand = self._has_optimizer and not self._has_stepped
        leaves = leaves_of(tensors_in([*args[:1], *kwargs.values()])) if may_step_by_hand else []
        with self._inside_call():
            result = call(*args, **kwargs)
        with self.device.on_host():
            self._leaves.note(leaves)
        self._num_passes = 0  # here: while it runs, it needs what they hold
        return result

    def _backward_by_hand(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Propagate back in a loop without modules and optimizers: an update of what it trains ends a step.

        That it has come shows at the next pass; where each pass has had one so far, the step ends with the pass.
        """
        self._has_called = True
        recorder, leaves = self._phase_recorder, leaves_of(tensors_in([*args[:1], *kwargs.values()]))
        with self.device.on_host():
            is_updated = self._leaves.are_updated(leaves)
        if is_updated and not self._step_ended:
            self._end_phase()
            self._end_step(0.0)
        if self._step_ended or recorder.step == 0:
            self._steps_at_each_pass = is_updated and recorder.micro_step == 0
            self._begin_step()
        else:
            recorder.micro_step += 1
        self._switch_to(Phase.BACKWARD)
        with self._inside_call():
            result = call(*args, **kwargs)
        with self.device.on_host():
            self._leaves.note(leaves)
        if self._steps_at_each_pass:
            self._end_phase()
            self._end_step(0.0)
            self._switch_to(Phase.DATA)
        return result

    def _begin_backward(self) -> None:
        if self._phase is Phase.EVAL:  # a model that is trained in evaluation mode
            module = self._evaluated_module()
            if module is not None:
                self._trained.add(module)
            self._phase_recorder.forward_facts = None
        if self._phase is not Phase.FORWARD:
            self._begin_micro_step()
        last_batch = self._shapes[-1] if self._shapes else None
        self._switch_to(Phase.BACKWARD, last_batch)

    def make_optimizer(self, call: Call, args: Arguments, kwargs: Keywords) -> None:
        """Make an optimizer: steps will end with its, and no longer with `backward`."""
        self._has_optimizer = True
        self._optimizers.note_made(args[0], making_line())
        self._sampling.begin_again()
        call(*args, **kwargs)

    def begin_optimizer(self, optimizer: torch.optim.Optimizer, args: Arguments, kwargs: Keywords) -> None:
        """Take note of an optimizer's step that begins; with a closure it holds the whole training step."""
        if self._is_elsewhere:
            return
        if self._step_ended or self._phase_recorder.step == 0:
            self._begin_micro_step()
        self._optimizer_at = self._optimizers.made_at(optimizer)
        self._switch_to(Phase.OPTIMIZER)
        has_closure = len(args) > 1 or bool(kwargs)
        if self._optimizers.is_settled(optimizer) and not has_closure:
            self._unobserved.enter_context(self.device.unobserved())

    def end_optimizer(self, optimizer: torch.optim.Optimizer, args: Arguments, kwargs: Keywords) -> None:
        """Take note that an optimizer's step is over, and with the leading one's the training step."""
        if self._is_elsewhere:
            return
        self._has_stepped = True
        self._phase_recorder.known_models.note_optimizer(optimizer)
        self._unobserved.close()
        self._end_phase()
        if self._optimizers.ends_step(optimizer):
            self._phase_recorder.training = self._optimizers.training
            if self._optimizers.training >= self._next_old_models:
                self._next_old_models = 2 * self._optimizers.training
                self._note_many_old_models()
            self._end_step(_learning_rate(optimizer))
        self._switch_to(Phase.DATA)
        self._since_step = self._begun

    def _end_step(self, learning_rate: float) -> None:
        phase_recorder = self._phase_recorder
        if self._sampling.shows_steps:
            seconds = time.perf_counter() - self._step_began
            phase_recorder.end_step(self._shapes, None, None, learning_rate, seconds)
        self._note_done_again(self._caught.note_step())
        self._step_ended = True
        if self._loaded.have_settled(phase_recorder.step):
            self._note_checkpoint_kept()
        self._write_collections()
        is_due = self._look_at is not None and phase_recorder.step >= self._look_at
        if (self._has_grown or is_due) and phase_recorder.step >= SETTLED_STEPS:
            # here, amid the loop: at the end of the script the collector frees models and all
            self._has_grown, self._look_at = False, None
            self._ask_collector()
            phase_recorder.probe("autocast_cache", torch.clear_autocast_cache)
            opened_at = autocast_around(self._frame()) if torch.is_autocast_cache_enabled() else None
            if opened_at is not None:
                holder = f"the context of autocast ({opened_at})"
                self._write(SurvivorRecord(phase_recorder.step, Phase.STEP, "", holder, 0, 0, unit=AUTOCAST))
        self._sampling.end_step(may_rest=not phase_recorder.survivors.is_recording)

    def _note_collection(self, before_bytes: int, after_bytes: int) -> None:
        """Take note of a run of the collector; it may come amid anything, so that it is written down later."""
        if not self._asks_collector:
            reserved = self.device.stats().reserved_bytes
            sizes = before_bytes, after_bytes, reserved, reserved
            name = COLLECTED_BY_SCRIPT if self._script_collects else COLLECTOR
            self._collections.append(ProbeRecord(name, self._phase_recorder.step, *sizes))

    def collect(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Take note that the script asks for the collector."""
        self._script_collects = True
        try:
            return call(*args, **kwargs)
        finally:
            self._script_collects = False

    def _write_collections(self) -> None:
        collected, self._collections = self._collections, []
        for record in collected:
            self._write(record)
            self._num_collected_bytes += record.freed_bytes
        if self._num_collected_bytes >= MIN_GARBAGE_BYTES and not self._has_looked:
            self._has_looked = True
            self._look_at = self._phase_recorder.step + STEPS_OF_GARBAGE

    def _ask_collector(self) -> None:
        """Record what the collector frees, and what closes the circle that held most of it."""
        found: list[tuple[Holder, int]] = []

        def collect() -> None:
            circle = collect_and_look(self.device)
            if circle is not None:
                found.append(circle)

        self._asks_collector = True
        self._phase_recorder.probe("gc", collect)
        self._asks_collector = False
        for holder, num_bytes in found:
            record = SurvivorRecord(self._phase_recorder.step, Phase.STEP, "", str(holder), num_bytes, 1, unit=CYCLE)
            self._write(dataclasses.replace(record, kept_by=holder.source))

    def begin_loader(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Begin a pass over a data loader; over the training data it is an epoch."""
        self._loader_began = True
        loader = args[0]
        if getattr(loader, "num_workers", 0) and not self._has_told_dataset:
            self._has_told_dataset = True
            holder = kept_by_class(type(loader.dataset))
            if holder is not None:
                step = self._phase_recorder.step
                self._write(SurvivorRecord(step, Phase.DATA, "", str(holder), 0, 0, unit=OF_WORKERS))
        return call(*args, **kwargs)

    # Files and states

    def save(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Write a checkpoint."""
        if self._cannot_save:
            return call(*args, **kwargs)
        self._begin_checkpoint()
        try:
            with self._inside_call():
                return call(*args, **kwargs)
        finally:
            self._has_saved = True
            self._switch_to(Phase.DATA)
            self._has_saved = False

    def state_dict(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Return a module's state, which may be the begin of a checkpoint."""
        has_destination = len(args) > 1 or "destination" in kwargs
        if has_destination or self._cannot_save:
            return call(*args, **kwargs)
        self._begin_checkpoint()
        with self._inside_call():
            return call(*args, **kwargs)

    def copy(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Copy something; of a model it may be the begin of a checkpoint."""
        if bool(args) and self._is_model(args[0]) and not self._cannot_save:
            self._begin_checkpoint()
        return call(*args, **kwargs)

    def _is_model(self, value: Any) -> bool:
        """Return whether it is a model that has been called, or of its class: averaged weights are called by nobody."""
        if not isinstance(value, torch.nn.Module):
            return False
        return self._has_parameters.get(value, False) or any(
            has_parameters and type(module) is type(value) for module, has_parameters in self._has_parameters.items()
        )

    @property
    def _cannot_save(self) -> bool:
        """Whether what is called now is no checkpoint: it is part of another call, or nothing has been trained."""
        return self._is_elsewhere or self._phase in (Phase.LOAD, None)

    def _begin_checkpoint(self) -> None:
        if self._phase is not Phase.CHECKPOINT:
            self._drop_data()
            self._switch_to(Phase.CHECKPOINT)

    def load(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Read a file, and take note of the tensors that lie on the device then."""
        if self._is_elsewhere:
            return call(*args, **kwargs)
        where = kwargs.get("map_location", _second(args))
        on_host = loads_to_host(where)
        with self.device.on_host() if on_host else nullcontext():
            loaded = call(*args, **kwargs)
        if not on_host:
            tensors = tensors_in(loaded, LOADED_DEPTH)
            self.device.adopt(tensors)
            self._loaded.replace(tensors, calling_line() or "", of_checkpoint=is_checkpoint(loaded))
        return loaded

    def load_state_dict(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Restore a module's state, which is a resumption where a file gave it."""
        state = kwargs.get("state_dict", _second(args))
        self._loaded.note_restored(tensors_in(state), self._phase_recorder.step)
        return call(*args, **kwargs)

    def _note_checkpoint_kept(self) -> None:
        """Report what was loaded, has been restored from, and still lies on the device beside what it went into."""
        in_use: set[Hashable | None] = {None}
        for module in self._has_parameters:
            in_use.update(map(self.device.handle_of, module.state_dict().values()))
        in_use.update(map(self.device.handle_of, tensors_in(self._optimizers.states())))
        kept = [tensor for tensor in self._loaded.take_alive() if self.device.handle_of(tensor) not in in_use]
        if sum(tensor.nbytes for tensor in kept) >= MIN_OLD_BYTES:
            self._phase_recorder.survivors.note_checkpoint_kept(kept, self._loaded.loaded_at)

    # Functions that generate

    def _observe_generators(self, cls: type) -> None:
        """Let each call of a class's own `generate` be seen."""
        for owner in cls.__mro__:
            for name, function in list(vars(owner).items()):
                if name.startswith(GENERATE) and callable(function) and hasattr(function, "__code__"):
                    self._observe_generator(owner, name, function)

    def _observe_function(self, code: CodeType) -> None:
        """Let further calls of a function be seen, wherever a module of the user's refers to it."""
        for module in list(sys.modules.values()):
            function = getattr(module, "__dict__", {}).get(code.co_name)
            if innermost_code(function) is code and not is_library(code.co_filename):
                self._observe_generator(module, code.co_name, function)

    def _observe_generator(self, owner: Any, name: str, function: Any) -> None:
        if not is_observed(function):
            self._patches.enter_context(patch.object(owner, name, observed(function, self.generate)))

    # The run as a whole

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, this thread's script is observed. The caller says by `end_log` how it ended."""
        self._write_out(self._run)
        self.device.on_out_of_memory(self._note_out_of_memory)
        patches = self.patches()
        with unseen_by_compiler(patches), self._patches:
            for owner, name, function in patches:
                self._patches.enter_context(patch.object(owner, name, function))
            for started in thread_patches(self.device, self._note_thread_died):
                self._patches.enter_context(started)
            self._patches.enter_context(collections_noted(self.device, self._note_collection))
            self._patches.callback(register_optimizer_step_pre_hook(self.begin_optimizer).remove)
            self._patches.callback(register_optimizer_step_post_hook(self.end_optimizer).remove)
            self._switch_to(Phase.LOAD)  # a phase that is recorded lays patches of its own over these
            with self.device.active():
                try:
                    yield
                finally:
                    self._unobserved.close()
                    self._sampling.close()

    def leave(self) -> None:
        """Observe nothing any more: this process was forked from the one that is observed."""
        self._thread = -1
        self._patches.enter_context(self.device.on_host())

    def exit_at_once(self, call: Call, args: Arguments, kwargs: Keywords) -> Any:
        """Leave the process by `os._exit`, once `on_exit` has been told: nobody is asked afterwards."""
        code = args[0] if args else kwargs.get("status", 0)
        if self.on_exit is None or os.getpid() != self._process:
            return call(code)
        told, self.on_exit = self.on_exit, None
        return call(told(code))

    def patches(self) -> list[Patch]:
        """Return what is replaced while the script is observed."""
        register_parameter = torch.nn.Module.register_parameter
        non_reentrant = next(name for name in NON_REENTRANT if hasattr(torch.utils.checkpoint, name))
        checkpointed = getattr(torch.utils.checkpoint, non_reentrant)
        return [
            *patches_of_tensors(self.device),
            (torch.nn.Module, "__call__", self._outermost_call()),
            (torch.nn.Module, "state_dict", observed(torch.nn.Module.state_dict, self.state_dict)),
            (torch.nn.Module, "load_state_dict", observed(torch.nn.Module.load_state_dict, self.load_state_dict)),
            (torch.nn.Module, "__setattr__", observed(torch.nn.Module.__setattr__, self.set_attribute)),
            (torch.nn.Module, "register_parameter", observed(register_parameter, self.register_parameter)),
            (CheckpointFunction, "apply", observed(CheckpointFunction.apply, self.checkpoint)),
            (torch.utils.checkpoint, non_reentrant, observed(checkpointed, self.checkpoint)),
            (torch.optim.Optimizer, "__init__", observed(torch.optim.Optimizer.__init__, self.make_optimizer)),
            (torch.autograd, "backward", observed(torch.autograd.backward, self.backward)),
            (torch.autograd, "grad", observed(torch.autograd.grad, self.backward)),
            (torch, "load", observed(torch.load, self.load)),
            (torch, "save", observed(torch.save, self.save)),
            (gc, "collect", observed(gc.collect, self.collect)),
            (os, "_exit", observed(os._exit, self.exit_at_once)),
            (copy, "deepcopy", observed(copy.deepcopy, self.copy)),
            (DataLoader, "__iter__", observed(DataLoader.__iter__, self.begin_loader)),
        ]

    def _outermost_call(self) -> Call:
        """Return what calls a module: it is observed where no other one is running in this thread."""
        original = torch.nn.Module.__call__
        get_ident = threading.get_ident

        @functools.wraps(original)
        def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            # spelled out: this runs for every layer
            if self.call_depth or (get_ident() != self._thread and not self._takes_over()):
                return original(module, *args, **kwargs)
            return self.call_module(original, module, args, kwargs)

        return call

    def _describe(self, **changes: Any) -> None:
        self._run = dataclasses.replace(self._run, **changes)
        self._write_out(self._run)

    def _note_thread_died(self, error: BaseException) -> None:
        if threading.get_ident() == self._thread:
            is_oom = self.device.as_out_of_memory(error) is not None
            self.thread_end = (Outcome.OOM, "") if is_oom else (Outcome.ERROR, message_of(error))

    def _frame(self) -> FrameType | None:
        return running_frame(self._thread)

    def _note_done_again(self, failures: Iterable[int]) -> None:
        for failure in failures:
            self._write(RetryRecord(failure, self._phase_recorder.step))

    def _note_out_of_memory(self, error: DeviceOutOfMemory) -> None:
        error.caught_at = self._caught.note_failure(self._phase, self._frame())
        self._note_failed_call(error)
        if self._optimizer_at:
            self._describe(settings_at=self._run.settings_at | {OPTIMIZER_SETTING: self._optimizer_at})
        if self._loaded.are_to_restore:
            self._note_checkpoint_kept()
        self._sampling.stop()
        self._note_old_models()
        self._note_what_is_there(error)
        self._has_failed = True
        self._phase_recorder.vocab_size = self._run.vocab_size
        self._phase_recorder.out_of_memory(error)

    def _note_what_is_there(self, error: DeviceOutOfMemory) -> None:
        """Report what the running calls were to make, and what is there that nothing of the present training needs."""
        if self._num_failures_looked_at == MAX_FAILURES_LOOKED_AT:
            return
        self._num_failures_looked_at += 1
        phase, step = self._phase or Phase.LOAD, self._phase_recorder.step
        failure = Failure(self.device, step, phase, error.requested_bytes)
        outputs = self._outputs.left(evaluates=phase is Phase.EVAL)
        write_what_is_there(failure, self._frame(), self._num_passes, outputs, self._write)
        for optimizer, made_at in self._optimizers.not_begun():
            self._write(model_states(failure, optimizer, made_at))
        if phase in IN_STEP:
            for module, tensors in self._module_calls.never_trained():
                held_bytes = sum(tensor.nbytes for tensor in tensors if self.device.handle_of(tensor) is not None)
                if held_bytes >= MIN_OLD_BYTES:
                    self._phase_recorder.survivors.note_old_model(module, held_bytes, NEVER_TRAINED)

    def _note_failed_call(self, error: DeviceOutOfMemory) -> None:
        """Take note of how the forward pass was made in which memory ran out, and of who made its batch."""
        running = self._running
        module = running.module() if running is not None else None
        if running is None or module is None or self._sampling.is_resting:
            return
        error.batch_at = running.batch_at
        has_graph = running.has_graph and any(parameter.requires_grad for parameter in module.parameters())
        if self._phase is Phase.FORWARD and self._has_checkpointed:
            self._phase_recorder.forward_facts = self._training_facts(module)
        elif self._phase is Phase.EVAL:
            cache_bytes, called_at = cache_in_frames(self._frame())
            passed = self._phase_recorder.forward_facts  # where the pass has ended, and what is computed of it failed
            called_at = called_at or line_that_called(self._frame()) or (passed.where if passed else None)
            facts = ForwardFacts(has_graph, cache_bytes, self._num_checkpointed)
            switched_at = self._changes.switched_at() if self._has_checkpointed and not self._num_checkpointed else None
            self._phase_recorder.forward_facts = dataclasses.replace(facts, where=called_at, switched_at=switched_at)

    def _note_old_models(self) -> None:
        """Report models that were trained before the present one, and called no more since it is."""
        # in its first step a training has no number yet; what a step calls has been called by its backward pass
        is_new = self._phase in (Phase.BACKWARD, Phase.OPTIMIZER) and self._optimizers.begin_training()
        if self._phase_recorder.training == 1 and not is_new:
            return
        for module, tensors in self._module_calls.models_before():
            held_bytes = sum(tensor.nbytes for tensor in tensors if self.device.handle_of(tensor) is not None)
            if held_bytes >= MIN_OLD_BYTES:
                self._phase_recorder.survivors.note_old_model(module, held_bytes)

    def _note_many_old_models(self) -> None:
        """Report models of earlier trainings, small ones too, while what holds them is there: of many, most are."""
        old = [
            (module, sum(tensor.nbytes for tensor in tensors)) for module, tensors in self._module_calls.models_before()
        ]
        num_bytes = sum(size for _, size in old)
        if len(old) >= MANY_TRAININGS - 2 and num_bytes >= MIN_OLD_BYTES:
            self._phase_recorder.survivors.note_old_model(old[0][0], num_bytes)

    def end_script(self) -> None:
        """Report what is still being looked at: the script has run to its end, and what it holds will go."""
        self._drop_data()
        self._end_phase()
        self._note_done_again(self._caught.note_end())
        self._note_old_models()
        self._phase_recorder.end_run()

    def end_log(self, outcome: Outcome, message: str, seconds: float) -> None:
        """Write how the script ended, and how many steps there were."""
        self._drop_data()
        self._end_phase()
        self._phase_recorder.stop()
        data_bytes, data_where = self.device.largest_data() or (0, "")
        self._describe(total_steps=self._phase_recorder.step, data_bytes=data_bytes, data_where=data_where)
        self._write_out(EndRecord(outcome, self._phase_recorder.step, seconds, message))


def _second(args: Arguments) -> Any:
    return args[1] if len(args) > 1 else None


def _evaluation_facts(module: torch.nn.Module, output: Any) -> ForwardFacts:
    """Return how an evaluation's forward pass was made, as far as its output tells."""
    tensors = tensors_in(output)
    facts = forward_facts(module, tensors, field_of(output, "past_key_values"), ())
    logits = output if isinstance(output, torch.Tensor) else field_of(output, "logits")
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes()
    return dataclasses.replace(
        facts,
        logits_bytes=logits.nbytes if isinstance(logits, torch.Tensor) else 0,
        output_bytes=sum(storages.values()),
        where=calling_line(),
    )


def _learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the first group's learning rate; 0 where there is none, as optimizers have that find it by themselves."""
    return float(optimizer.param_groups[0].get("lr") or 0.0)


def _rank() -> int:
    """Return which of the processes this is that have joined to train together; 0 where it has joined none."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
