"""What Python's collector knows to be alive, by kind, and who holds it: tensors, graphs, failures, models, arrays.

The lists made here refer to what they hold too; each is named among the ignored when a holder is looked for.
"""

from __future__ import annotations

import functools
import gc
import traceback
import weakref
from collections import defaultdict, deque
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.devices.parallel import local_part
from memory_harness.harness.observe.holders import (
    Holder,
    find_holder,
    first_users_holder,
    hook_code,
    last_line,
    local_variables,
    referred,
)

MIN_LEFT_BYTES = 64 * 1024  # least that a phase recorded as a whole must leave, or have at its peak, for a report
MAX_OBJECTS_ASKED = 3  # objects of a kind whose referrers are followed
MAX_GRAPHS_ASKED = 12  # the same of tensors with a graph, the smallest first
_SAVED = "_raw_saved_"  # begin of the attributes by which a graph's node tells what it has saved
_ADDITIONS = {"AddBackward0", "SubBackward0"}
SUMMING = {*_ADDITIONS, "DivBackward0", "MulBackward0"}  # nodes that a running sum or mean of numbers is made of
MAX_LOOKS = 4  # times that all objects are gone through for models and optimizers
MAX_NODES = 20_000  # of graphs that are gone through for what they refer to
MAX_GRAPHS_COMPARED, MAX_NODES_COMPARED = 24, 200  # tensors, and nodes of each, looked at for what they have saved
MAX_GRAPHS_LOOKED_AT = 20_000  # tensors with a graph among which those are looked for that anybody refers to


def live(kind: type) -> list[Any]:
    """Return the objects of a kind; `isinstance` would ask objects that only stand for others.

    Each type is asked once: there are half a million objects and a thousand types. Parameters of lazy modules, which
    have neither shape nor memory before the first call, are left out.
    """
    objects = gc.get_objects()
    of_kind = {found for found in set(map(type, objects)) if issubclass(found, kind) and not _is_lazy(found)}
    return [item for item in objects if type(item) in of_kind]


def live_modules() -> list[torch.nn.Module]:
    """Return the modules, without those that are being copied: they have no parts yet."""
    return [module for module in live(torch.nn.Module) if "_parameters" in vars(module)]


def _is_lazy(kind: type) -> bool:
    return issubclass(kind, (UninitializedBuffer, UninitializedParameter))


def tensors_by_handle(device: ObservableDevice) -> dict[Hashable, list[torch.Tensor]]:
    """Return the tensors that Python knows of, by the allocation that they lie in."""
    found: dict[Hashable, list[torch.Tensor]] = defaultdict(list)
    for tensor in live(torch.Tensor):
        if tensor.layout is torch.strided:
            handle = device.handle_of(tensor)
            if handle is not None:
                found[handle].append(tensor)
    return dict(found)


def gradient_handles(device: ObservableDevice) -> set[Hashable]:
    """Return where gradients lie: their parameters hold them, which Python does not see."""
    found: set[Hashable] = set()
    for tensor in live(torch.Tensor):
        if tensor.is_leaf and tensor.grad is not None:
            found.add(device.handle_of(tensor.grad))
    return found - {None}


def gradients_have_graphs() -> bool:
    """Return whether a parameter's gradient can be differentiated itself: each refers to the other then."""
    for tensor in live(torch.Tensor):
        if tensor.is_leaf and tensor.grad is not None and tensor.grad.grad_fn is not None:
            return True
    return False


def holder_of_graph(
    tensors: dict[Hashable, list[torch.Tensor]], num_asked: int = MAX_GRAPHS_ASKED, since: int | None = None
) -> Holder | None:
    """Return who holds a tensor that has a graph: between two steps nobody should.

    Args:
        tensors: among which one is looked for, by the allocation that they lie in.
        num_asked: most tensors whose holders are looked for.
        since: number of the first node of the last step's graph, where it is known. A tensor by which graphs reach back
            beyond it goes first: a loss of the last step refers to all steps too where a state was handed on.
    """
    with_graph = [tensor for tensor in chain.from_iterable(tensors.values()) if tensor.grad_fn is not None]
    # what people keep is a loss or another small result, not the activations behind it
    with_graph.sort(key=torch.Tensor.numel)
    # a graph saves many, which only it refers to
    found = referred(with_graph[:MAX_GRAPHS_LOOKED_AT], [with_graph, *tensors.values()])
    named = [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
    handed_on = set() if since is None else _handed_on(named, since)
    named.sort(key=lambda tensor: _made(tensor) not in handed_on)
    looked_at = named[:MAX_GRAPHS_COMPARED]
    # of two averages of losses, the one whose losses no backward pass has been through
    looked_at.sort(key=lambda tensor: (_made(tensor) not in handed_on, not _keeps_saved(tensor)))
    asked = looked_at[:num_asked]
    users: list[Holder] = []
    others: list[Holder] = []
    for tensor in asked:
        holder = find_holder(tensor, [asked, looked_at, found, named, with_graph, *tensors.values()])
        if holder is None:
            continue
        if holder.is_users:
            users.append(holder)
        else:
            others.append(holder)
    # a loss whose graph reaches back only shows what carries the graph on, such as a state handed to the next step
    adding = [holder for holder in users if holder.adds]
    return next(iter(adding or users or others), None)


def _keeps_saved(tensor: torch.Tensor) -> bool:
    """Return whether the newest nodes of a tensor's graph still have what they saved, more than single numbers."""
    waiting = deque([tensor.grad_fn])
    seen = set(waiting)
    while waiting and len(seen) < MAX_NODES_COMPARED:
        node: Any = waiting.popleft()
        for name in _names_of_saved(type(node)):  # type: ignore[arg-type] # of no class that mypy knows
            saved = saved_by(node, name)
            if saved is not None and saved.numel() > 1 and not isinstance(saved, torch.nn.Parameter):
                return True
        following = {inner for inner, _ in node.next_functions if inner is not None} - seen
        seen |= following
        waiting += following
    return False


@functools.cache
def _names_of_saved(kind: type) -> list[str]:
    """Return the names under which nodes of a type save something."""
    return [name.removeprefix(_SAVED) for name in dir(kind) if name.startswith(_SAVED)]


def saved_by(node: Any, name: str) -> torch.Tensor | None:
    """Return a tensor that a graph's node has saved; None once it is let go, and of what a hook would have to unpack.

    A hook may do anything, such as run a layer again.
    """
    try:
        saved = getattr(node, _SAVED + name)
    except RuntimeError:  # of a list of tensors that is let go
        return None
    kept = getattr(saved, "data", None)
    return kept if isinstance(kept, torch.Tensor) and saved.unpack_hook is None else None


Made = tuple[str, tuple[int, ...]]
"""name of the node of a graph that has made a tensor, and its shape"""


def _made(tensor: torch.Tensor) -> Made:
    assert tensor.grad_fn is not None
    return tensor.grad_fn.name(), tuple(tensor.shape)


def _handed_on(tensors: Sequence[torch.Tensor], since: int) -> set[Made]:
    """Return what graphs got of the steps before: what they refer to that was made before a node's number."""
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen = set(waiting)
    found: set[Made] = set()
    while waiting and len(seen) < MAX_NODES:
        for node, number in waiting.pop().next_functions:
            if node is None or node in seen:
                continue
            if node._sequence_nr() < since:
                found.add((node.name(), tuple(node._input_metadata[number].shape)))
            else:
                seen.add(node)
                waiting.append(node)
    return found


def summed_losses(least: int) -> tuple[Holder, int] | None:
    """Return who holds a sum of at least so many numbers that have graphs, and of how many; None where nobody does.

    Once each has been propagated back the sum costs the device nothing, but it refers to the nodes of all the graphs.
    """
    sums = []
    for tensor in live(torch.Tensor):
        if tensor.grad_fn is not None and tensor.dim() == 0:
            num_terms = _num_terms(tensor.grad_fn)
            if num_terms >= least:
                sums.append((num_terms, tensor))
    if not sums:
        return None
    num_terms = max(number for number, _ in sums)
    longest = [tensor for number, tensor in sums if number == num_terms]
    holder = first_users_holder(longest[:MAX_OBJECTS_ASKED], [longest, *sums, sums])
    return None if holder is None else (holder, num_terms)


def _num_terms(node: Any) -> int:
    """Return how many additions of numbers follow one another in a graph."""
    number = 0
    while node is not None and node.name() in SUMMING:
        number += node.name() in _ADDITIONS
        numbers = [inner for inner, _ in node.next_functions if inner is not None and is_of_number(inner)]
        carried = [inner for inner in numbers if inner.name() in SUMMING]
        node = next(iter(carried or numbers), None)
    return number


def is_of_number(node: Any) -> bool:
    """Return whether a node of a graph has made nothing but numbers."""
    return all(len(metadata.shape) == 0 for metadata in node._input_metadata)


def hook_with_line(path: str, line: int) -> str | None:
    """Return the name of the function in which a line lies, where a module calls that function as a hook."""
    for module in live_modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            for hook in hooks.values():
                code = hook_code(hook)
                if code and code.co_filename == path and code.co_firstlineno <= line <= last_line(code):
                    return code.co_name
    return None


def holder_of_failure(device: ObservableDevice) -> Holder | None:
    """Return who keeps an out-of-memory that was caught, and with it the frames of its traceback."""
    errors = live(Exception)
    failures = [error for error in errors if _holds_tensors(error, device) and device.as_out_of_memory(error)]
    return first_users_holder(failures[:MAX_OBJECTS_ASKED], [errors, failures])


def _holds_tensors(error: BaseException, device: ObservableDevice) -> bool:
    """Return whether a frame of the traceback has a tensor of the device: that of an earlier run's error has none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in local_variables(frame).values():
            if issubclass(type(value), torch.Tensor) and device.handle_of(value) is not None:
                return True
    return False


def holder_of_host_tensors(device: ObservableDevice, least_bytes: int) -> Holder | None:
    """Return who holds the largest tensors in host memory that are no part of a model, or arrays where nobody does.

    Where no name of the user's does, it is what holds the largest array of so many bytes, a library's name too.
    """
    host = []
    for tensor in live(torch.Tensor):
        is_plain = tensor.layout is torch.strided and not isinstance(tensor, torch.nn.Parameter)
        if is_plain and tensor.device.type == "cpu" and device.handle_of(tensor) is None:
            host.append(tensor)
    host.sort(key=torch.Tensor.numel, reverse=True)
    of_users = first_users_holder(host[:MAX_OBJECTS_ASKED], [host]) or _holder_of_arrays()
    return of_users or _holder_of_largest_array(least_bytes)


def holder_of_arrays_over(tensors: list[torch.Tensor]) -> Holder | None:
    """Return who holds NumPy arrays that lie in the memory of tensors, which only these arrays may refer to."""
    wanted = set(map(id, tensors))
    for item in gc.get_objects():
        if type(item) in (list, dict, tuple, deque):
            for member in gc.get_referents(item):  # a tuple in the making has items that are none yet
                if type(member) is np.ndarray and _base_of(member) in wanted:
                    return find_holder(item, [tensors])
    return None


def _base_of(array: np.ndarray[Any, Any]) -> int:
    """Return the id of what an array is a view of, behind other arrays."""
    base: Any = array.base
    while type(base) is np.ndarray:
        base = base.base
    return id(base)


def _holder_of_arrays() -> Holder | None:
    """Return who holds the most bytes of NumPy arrays in one list or dictionary; the collector knows of no array."""
    containers = []
    for item in gc.get_objects():
        if type(item) in (list, dict, deque) and _array_bytes(item) >= MIN_LEFT_BYTES:
            containers.append(item)
    containers.sort(key=_array_bytes, reverse=True)
    return first_users_holder(containers[:MAX_OBJECTS_ASKED], [containers])


def _holder_of_largest_array(least_bytes: int) -> Holder | None:
    """Return who holds the largest array of at least so many bytes, such as an attribute that is replaced each time."""
    largest: list[np.ndarray[Any, Any]] = []
    for item in gc.get_objects():
        for member in gc.get_referents(item):
            if type(member) is np.ndarray and member.nbytes >= least_bytes:
                least_bytes, largest = member.nbytes, [member]
    return find_holder(largest[0], [largest]) if largest else None


def _array_bytes(container: list[Any] | dict[Any, Any] | deque[Any]) -> int:
    items = container.values() if isinstance(container, dict) else container
    return sum(item.nbytes for item in list(items) if issubclass(type(item), np.ndarray))


def holder_of_model(tensors: dict[Hashable, list[torch.Tensor]]) -> Holder | None:
    """Return who holds the model with the most parameters on the device, or the largest tensor where there is none."""
    modules = live_modules()
    inner: set[int] = set()
    for module in modules:
        inner.update(map(id, module.children()))
    on_device = set(map(id, chain.from_iterable(tensors.values())))
    models: list[torch.nn.Module] = []  # the largest
    most = 0
    for module in modules:
        if id(module) not in inner:
            size = sum(id(parameter) in on_device for parameter in module.parameters())
            if size > most:
                models, most = [module], size
    largest = sorted(chain.from_iterable(tensors.values()), key=lambda tensor: -tensor.untyped_storage().nbytes())
    asked = [*models, *largest[:MAX_OBJECTS_ASKED]]
    return first_users_holder(asked, [modules, models, largest])


Named = tuple[str, str, int]
"""category, as in `OomRecord.live_bytes`; name of the parameter or buffer; bytes of its storage"""


class KnownModels:
    """Models and optimizers that live.

    Who sees them called says so; else they are looked for among all objects, which takes 0.2 s, a few times only.
    """

    def __init__(self) -> None:
        self._modules: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        self._optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._num_looks = 0

    def note_module(self, module: torch.nn.Module) -> None:
        """Take note of a model; no other is looked for from now on."""
        self._modules.add(module)
        self._num_looks = MAX_LOOKS

    def note_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Take note of an optimizer."""
        self._optimizers.add(optimizer)

    def look(self) -> tuple[list[torch.nn.Module], list[torch.optim.Optimizer]]:
        """Return them; looks for them as long as one of the two is missing."""
        if (not self._modules or not self._optimizers) and self._num_looks < MAX_LOOKS:
            self._num_looks += 1
            modules, optimizers = _modules_and_optimizers()
            self._modules.update(modules)
            self._optimizers.update(optimizers)
        return list(self._modules), list(self._optimizers)


def named_memory(device: ObservableDevice, known: KnownModels) -> dict[Hashable, Named]:
    """Return what models and optimizers have on the device, by the allocation that it lies in."""
    modules, optimizers = known.look()
    found: dict[Hashable, Named] = {}

    def add(category: str, name: str, value: Any) -> None:
        kind = type(value)
        if issubclass(kind, torch.Tensor) and not _is_lazy(kind) and value.layout is torch.strided:
            tensor = local_part(value)
            handle = device.handle_of(tensor)
            if handle is not None:
                found.setdefault(handle, (category, name, tensor.untyped_storage().nbytes()))

    names: dict[int, str] = {}
    for model in _outermost(modules):
        for name, parameter in model.named_parameters():
            names[id(parameter)] = name
            add("parameter", name, parameter)
            add("gradient", name, parameter.grad)
        for name, buffer in model.named_buffers():
            add("buffer", name, buffer)
    for optimizer in optimizers:
        for owner, state in optimizer.state.items():
            for value in state.values() if isinstance(state, dict) else ():
                add("optimizer_state", names.get(id(owner), ""), value)
    return found


def _modules_and_optimizers() -> tuple[list[torch.nn.Module], list[torch.optim.Optimizer]]:
    """Return all that live."""
    return live_modules(), live(torch.optim.Optimizer)


def _outermost(modules: list[torch.nn.Module]) -> list[torch.nn.Module]:
    """Return the modules that are in no other one."""
    inner: set[int] = set()
    for module in modules:
        inner.update(map(id, vars(module).get("_modules", {}).values()))
    return [module for module in modules if id(module) not in inner]
