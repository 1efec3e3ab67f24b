"""What can be asked once, when memory has run out: what the running calls work on, and what else is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import islice, product
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import Any, NamedTuple

import torch

from memory_harness.harness.devices.base import ObservableDevice
from memory_harness.harness.devices.parallel import local_part
from memory_harness.harness.log.records import (
    CAUGHT_BEFORE,
    LEFT_OUTPUT,
    MODEL_STATES,
    OWN_GRAPHS,
    SCORES,
    UPCAST,
    Phase,
    Record,
    SurvivorRecord,
)
from memory_harness.harness.log.source_lines import SourceLine, is_harness, is_library, source_line
from memory_harness.harness.observe.facts import tensors_in
from memory_harness.harness.observe.holders import Holder, first_users_holder, local_variables
from memory_harness.harness.observe.live_objects import MAX_OBJECTS_ASKED, SUMMING, is_of_number, live, saved_by

MIN_BYTES = 64 * 1024  # least that is worth a report
MIN_GRAPHS = 4  # of passes that have nothing in common but parameters, before they are said to wait
MAX_NODES = 20_000  # of graphs that are looked at
MAX_FRAMES = 30
ATTENTION = "multi_head_attention_forward"  # PyTorch's function behind `nn.MultiheadAttention`
SOFTMAX = "SoftmaxBackward0"
_KEPT = {torch.optim.Adam: 2, torch.optim.AdamW: 2}
"""Values that an optimizer keeps for each that it trains, of that one's type; of others it is not said."""
_PLAIN = (torch.Tensor, list, tuple, dict)  # variables in which tensors are looked for
NARROW = (torch.float16, torch.bfloat16)
_TO_FLOAT = re.compile(r"\.float\(\)|\.(to|type)\([^()]*float32")
_CAST = re.compile(r"\bfloat\(|float32|\.to\(|\.type\(|\bdouble\(")


class _Place(NamedTuple):
    """A running frame, and its local variables."""

    line: SourceLine
    variables: dict[str, Any]

    @property
    def values(self) -> list[Any]:
        """What the variables have."""
        return list(self.variables.values())


class Failure(NamedTuple):
    """An allocation that failed."""

    device: ObservableDevice
    step: int
    phase: Phase
    requested_bytes: int


def write_what_is_there(
    failure: Failure,
    frame: FrameType | None,
    num_passes: int,
    outputs: Iterable[torch.Tensor],
    write: Callable[[Record], None],
) -> None:
    """Write what the failed call was to make, and what waits or was left.

    Args:
        frame: the innermost that runs; no caller may keep it, as it would keep all that the script's frames hold.
        num_passes: of the model since the last backward pass.
        outputs: of the last evaluation's models that are trained.
    """
    places = list(_places(frame))
    records = [_upcast(failure, places), _scores(failure, places), _left_output(failure, list(outputs))]
    records.append(_caught_before(failure, frame))
    if failure.phase is Phase.BACKWARD:
        records.append(_scores_behind(failure, places))
    if num_passes >= MIN_GRAPHS:
        records.append(_own_graphs(failure))
    for record in records:
        if record is not None:
            write(record)


def model_states(failure: Failure, optimizer: torch.optim.Optimizer, made_at: str) -> SurvivorRecord:
    """Return what gradients and states an optimizer that has none yet will have on the device, as far as is known."""
    num_bytes = num_tensors = 0
    for group in optimizer.param_groups:
        num_kept = _KEPT.get(type(optimizer), 0)
        num_kept += bool(num_kept and group.get("amsgrad"))
        trained = [local_part(parameter) for parameter in group["params"] if parameter.requires_grad]
        on_device = [parameter for parameter in trained if failure.device.handle_of(parameter) is not None]
        num_bytes += (1 + num_kept) * sum(parameter.nbytes for parameter in on_device)
        num_tensors += len(on_device)
    holder = type(optimizer).__name__ + (f" ({made_at})" if made_at else "")
    return SurvivorRecord(failure.step, failure.phase, "", holder, num_bytes, num_tensors, unit=MODEL_STATES)


def _places(frame: FrameType | None) -> Iterator[_Place]:
    """Yield the running frames up to the user's innermost one, which has asked for what did not fit."""
    for outer, number in islice(walk_stack(frame), MAX_FRAMES):
        path = outer.f_code.co_filename
        if is_harness(path) or "/torch/utils/_python_dispatch" in path:
            continue
        yield _Place(SourceLine(path, number, outer.f_code.co_name), local_variables(outer))
        if not is_library(path):
            return


def _upcast(failure: Failure, places: list[_Place]) -> SurvivorRecord | None:
    """Find a frozen parameter in 16 bits whose copy in float32 did not fit, or what was cast before.

    A library's line may cast; the user's is told that led there.
    """
    for place in places:
        parameters = [parameter for value in place.values for parameter in _parameters(value)]
        for parameter in parameters:
            is_frozen = parameter.dtype in NARROW and not parameter.requires_grad
            is_asked_for = is_frozen and 4 * parameter.numel() == failure.requested_bytes
            if is_asked_for and _CAST.search(source_line(place.line.path, place.line.line)):
                return _made_by(failure, UPCAST, places[-1].line, parameter, failure.requested_bytes, 1)
    return _cast_before(failure)


def _cast_before(failure: Failure) -> SurvivorRecord | None:
    """Find matrices in float32, made by a line that casts, of models of which others are in 16 bits; none trains."""
    parameters = [parameter for parameter in live(torch.nn.Parameter) if not parameter.requires_grad]
    wide, narrow = [], 0
    for parameter in parameters:
        narrow += parameter.nbytes if parameter.dtype in NARROW else 0
        if parameter.dtype is torch.float32 and parameter.dim() > 1:
            line = failure.device.origin_of(parameter)
            if line is not None and _TO_FLOAT.search(source_line(line.path, line.line)):
                wide.append((parameter, line))
    num_bytes = sum(parameter.nbytes for parameter, _ in wide) // 2
    if not narrow or num_bytes < MIN_BYTES:
        return None
    largest, line = max(wide, key=lambda pair: pair[0].nbytes)
    return _made_by(failure, UPCAST, line, largest, num_bytes, len(wide))


def _parameters(value: Any) -> Iterable[torch.Tensor]:
    """Return what a variable has of parameters: itself, or a module's own."""
    if isinstance(value, torch.nn.Module):
        return [parameter for parameter in vars(value).get("_parameters", {}).values() if parameter is not None]
    return [value] if isinstance(value, torch.nn.Parameter) else []


def _scores(failure: Failure, places: list[_Place]) -> SurvivorRecord | None:
    """Find queries and keys, each batch x heads x tokens x head size, whose products are what did not fit."""
    for place in places:
        weights = _weights_of_heads(failure, place)
        if weights is not None:
            return weights
        four = [value for value in place.values if isinstance(value, torch.Tensor) and value.dim() == 4]
        for queries, keys in product(four, four):
            alike = queries.shape[0] == keys.shape[0] and queries.shape[3] == keys.shape[3]
            shape = (*queries.shape[:3], keys.shape[2])
            num_scores = torch.Size(shape).numel()
            is_size = failure.requested_bytes in (2 * num_scores, 4 * num_scores)
            if alike and queries.shape[3] < keys.shape[2] and failure.requested_bytes >= MIN_BYTES and is_size:
                record = _made_by(failure, SCORES, place.line, queries, failure.requested_bytes, 1)
                return replace(record, shape=shape)
    return None


def _scores_behind(failure: Failure, places: list[_Place]) -> SurvivorRecord | None:
    """Find attention's weights of the size that did not fit, in the graph that a backward pass goes through.

    Their gradient is as large as they are. They have as many columns as rows, for each head of each sequence.
    """
    values = [value for place in places for value in place.values]
    roots = {value.grad_fn for value in values if isinstance(value, torch.Tensor) and value.grad_fn is not None}
    for root, place in product(roots, places[-1:]):
        for node in _nodes_behind(root):
            weights = saved_by(node, "result") if node.name() == SOFTMAX else None
            if weights is None or failure.requested_bytes != weights.nbytes or weights.nbytes < MIN_BYTES:
                continue
            *heads, rows, columns = weights.shape
            if rows == columns > 1 and len(heads) in (1, 2):
                record = _made_by(failure, SCORES, place.line, weights, weights.nbytes, 1)
                return replace(record, shape=(*heads, rows, columns) if len(heads) == 2 else (1, *weights.shape))
    return None


def _weights_of_heads(failure: Failure, place: _Place) -> SurvivorRecord | None:
    """Find the weights of all heads that `nn.MultiheadAttention` stores, unless it is told that nobody needs them."""
    variables = place.variables
    if place.line.function != ATTENTION or not variables.get("need_weights"):
        return None
    queries, values = variables.get("q"), variables.get("v")
    if not isinstance(queries, torch.Tensor) or not isinstance(values, torch.Tensor) or queries.dim() != 3:
        return None
    num_heads: int = variables["num_heads"]
    shape = (queries.shape[0] // num_heads, num_heads, queries.shape[1], values.shape[1])
    num_scores = torch.Size(shape).numel()
    if failure.requested_bytes < MIN_BYTES or failure.requested_bytes not in (2 * num_scores, 4 * num_scores):
        return None
    return replace(_made_by(failure, SCORES, place.line, queries, failure.requested_bytes, 1), shape=shape)


def _own_graphs(failure: Failure) -> SurvivorRecord | None:
    """Find losses with graphs that have nothing in common but parameters: each is another pass's."""
    with_graph = [tensor for tensor in live(torch.Tensor) if tensor.grad_fn is not None and tensor.numel() == 1]
    numbers = [tensor for tensor in with_graph if failure.device.handle_of(tensor) is not None]
    seen: set[Any] = set()
    num_graphs = 0
    kept = []
    for tensor in numbers:
        roots = list(_terms(tensor.grad_fn))
        own = [nodes for nodes in map(_nodes_behind, roots) if len(nodes) > 1]
        for nodes in own:
            if seen.isdisjoint(nodes) and len(seen) < MAX_NODES:
                num_graphs += 1
                kept.append(tensor)
            seen |= nodes
    if num_graphs < MIN_GRAPHS:
        return None
    holder = _adding_holder(kept, numbers)
    return None if holder is None else _held(failure, OWN_GRAPHS, holder, 0, num_graphs)


def _adding_holder(kept: list[torch.Tensor], numbers: list[torch.Tensor]) -> Holder | None:
    """Return who holds the graphs: where most hang on one number, its holder; else what a line adds them to."""
    most = max(kept, key=lambda tensor: sum(tensor is other for other in kept))
    asked = [most, *(tensor for tensor in kept if tensor is not most)]
    found = None
    for tensor in asked[: 2 * MAX_OBJECTS_ASKED]:
        holder = first_users_holder([tensor], [kept, numbers, asked])
        found = found or holder
        if holder is not None and holder.adds:
            return holder
    return found


def _terms(node: Any) -> Iterator[Any]:
    """Yield the nodes of the numbers that a sum or a mean of numbers consists of."""
    waiting = [node]
    seen: set[Any] = set()
    while waiting and len(seen) < MAX_NODES:
        following = waiting.pop()
        if following is None or following in seen:
            continue
        seen.add(following)
        if following.name() in SUMMING and is_of_number(following):
            waiting += [inner for inner, _ in following.next_functions]
        else:
            yield following


def _nodes_behind(node: Any) -> set[Any]:
    """Return the nodes of a graph, without those of the leaves, which all graphs of a model share."""
    waiting = [node]
    found: set[Any] = set()
    while waiting and len(found) < MAX_NODES:
        following = waiting.pop()
        if following is not None and following not in found and not hasattr(following, "variable"):
            found.add(following)
            waiting += [inner for inner, _ in following.next_functions]
    return found


def _left_output(failure: Failure, outputs: list[torch.Tensor]) -> SurvivorRecord | None:
    """Find who holds an output of an evaluation that is over."""
    num_bytes = sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in outputs}.values())
    if num_bytes < MIN_BYTES:
        return None
    outputs.sort(key=lambda tensor: -tensor.nbytes)
    holder = first_users_holder(outputs[:MAX_OBJECTS_ASKED], [outputs])
    return None if holder is None else _held(failure, LEFT_OUTPUT, holder, num_bytes, len(outputs))


def _caught_before(failure: Failure, frame: FrameType | None) -> SurvivorRecord | None:
    """Find an exception that was caught, and is still there while its work is tried again: it holds its frames.

    Parameters and what running functions have too are there without it. The line is the one in the function that
    caught it at which that is now, such as one of the `except` block.
    """
    running = [outer for outer, _ in walk_stack(frame) if not is_harness(outer.f_code.co_filename)]
    in_use = set().union(*(_sizes_in(failure.device, outer) for outer in running))
    most, at = MIN_BYTES, None
    for error in live(Exception):
        frames = [passed for passed, _ in walk_tb(error.__traceback__)]
        catching = [passed for passed in frames if passed in running]
        sizes: dict[Hashable, int] = {}
        for ended in frames:
            sizes |= _sizes_in(failure.device, ended)
        num_bytes = sum(size for handle, size in sizes.items() if handle not in in_use)
        if catching and num_bytes > most:
            path, line = catching[-1].f_code.co_filename, catching[-1].f_lineno
            most, at = num_bytes, Holder("a caught exception", path, line, stores=True)
    return None if at is None else _held(failure, CAUGHT_BEFORE, at, most, 1)


def _sizes_in(device: ObservableDevice, frame: FrameType) -> dict[Hashable, int]:
    """Return the bytes of the device that a frame's variables have, but for parameters, by allocation."""
    tensors = tensors_in([value for value in local_variables(frame).values() if isinstance(value, _PLAIN)])
    own = [tensor for tensor in tensors if not isinstance(tensor, torch.nn.Parameter)]
    sizes = {device.handle_of(tensor): tensor.untyped_storage().nbytes() for tensor in own}
    return {handle: size for handle, size in sizes.items() if handle is not None}


def _held(failure: Failure, unit: str, holder: Holder, num_bytes: int, number: int) -> SurvivorRecord:
    record = SurvivorRecord(failure.step, failure.phase, "", str(holder), num_bytes, number, unit=unit)
    return replace(record, kept_by=holder.source)


def _made_by(
    failure: Failure, unit: str, line: SourceLine, tensor: torch.Tensor, num_bytes: int, number: int
) -> SurvivorRecord:
    record = SurvivorRecord(failure.step, failure.phase, str(line), "", num_bytes, number, unit=unit)
    made_by = source_line(line.path, line.line)
    return replace(record, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."), made_by=made_by)
