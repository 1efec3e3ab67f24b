"""What outlives the units in which it was made: by which line, of how many bytes, and who holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import torch

from memory_harness.harness.devices.base import Allocation, ObservableDevice
from memory_harness.harness.log.records import GROWING_TENSOR, HOOK, Phase, SurvivorRecord, peak_unit
from memory_harness.harness.log.source_lines import SourceLine, source_line, users_line
from memory_harness.harness.observe.holders import Holder, find_holder, referred, users_first
from memory_harness.harness.observe.live_objects import (
    MAX_OBJECTS_ASKED,
    gradient_handles,
    gradients_have_graphs,
    holder_of_arrays_over,
    holder_of_graph,
    hook_with_line,
    tensors_by_handle,
)

MIN_RISE_BYTES = 4096  # least lasting rise of the floor that counts: a kept scalar takes a block of 512 B, no leak
MAX_RECORDS = 8  # records of one report; the largest come first
GRADIENT_WITH_GRAPH = "a gradient, as create_graph=True makes it"
GROWING_SHARE = 0.6  # share of the growth that tensors must have grown by before it is theirs
Tensors = dict[Hashable, list[torch.Tensor]]  # the tensors that Python knows of, by the allocation that they lie in


class Survivor(NamedTuple):
    """An allocation that is still there."""

    allocation: Allocation
    phase: Phase  # in which it was made
    unit: int  # in which it was made; counts from 0


_unit_of = attrgetter("unit")
Place = tuple[Phase, SourceLine | None]  # where something was made


class UnitEnd(NamedTuple):
    """What there was when a unit ended."""

    num_units: int  # that had ended then
    allocated_bytes: int
    made: dict[Place, int]  # bytes that the unit itself had made, by where


def place_of(survivor: Survivor) -> Place:
    """Return the phase and the line in which a survivor was made."""
    return survivor.phase, users_line(survivor.allocation.frames)


def bytes_by_place(survivors: Iterable[Survivor]) -> dict[Place, int]:
    """Return how much of the survivors was made where."""
    found: Counter[Place] = Counter()
    for survivor in survivors:
        found[place_of(survivor)] += survivor.allocation.num_bytes
    return dict(found)


@dataclass
class _Group:
    """Survivors of one place in the code and one phase."""

    phase: Phase
    site: SourceLine | None
    members: list[Survivor] = field(default_factory=list)

    def bytes_per_unit(self, num_units: int) -> int:
        """Return the bytes left behind by a unit, of several the last one apart: its own may be on their way out."""
        num_counted = max(1, num_units - 1)
        counted = self.members if num_units == 1 else self._made_before(num_counted)
        return sum(member.allocation.num_bytes for member in counted) // num_counted

    def older_handles(self) -> list[Hashable]:
        """Return the handles of all units but the last, or of all where there is no other, oldest first."""
        older = self._made_before(max(map(_unit_of, self.members))) or self.members
        return [member.allocation.handle for member in older]

    def _made_before(self, unit: int) -> list[Survivor]:
        return [member for member in self.members if member.unit < unit]


def survivor_records(
    survivors: Iterable[Survivor],
    unit: str,
    num_units: int,
    step: int,
    device: ObservableDevice,
    last_began: int | None = None,
) -> list[SurvivorRecord]:
    """Return what more than one of the units left behind, or a single one, the most bytes first.

    `last_began` is the number of the first node of a graph that the last unit made.
    """
    lasting = _lasting_groups(survivors, num_units)
    growing = [group for group in lasting if group.bytes_per_unit(num_units) >= MIN_RISE_BYTES]
    growing.sort(key=lambda group: -group.bytes_per_unit(num_units))
    if not growing:
        return []
    tensors = tensors_by_handle(device)
    graph = _holder_of_old_graph(lasting, tensors, last_began)
    gradients = gradient_handles(device)
    records = []
    for group in growing[:MAX_RECORDS]:
        is_of_gradients = not gradients.isdisjoint(group.older_handles())
        records.append(_record(group, unit, num_units, step, tensors, None if is_of_gradients else graph))
    return records


def _lasting_groups(survivors: Iterable[Survivor], num_units: int) -> list[_Group]:
    """Return the survivors by what made them, of what more than one of several units has left."""
    groups: dict[Place, _Group] = {}
    for survivor in survivors:
        if survivor.unit < num_units:
            place = place_of(survivor)
            groups.setdefault(place, _Group(*place)).members.append(survivor)
    return [group for group in groups.values() if _lasts(set(map(_unit_of, group.members)), num_units)]


def lasting_bytes(survivors: Iterable[Survivor], num_units: int) -> int:
    """Return how much there is of what more than one of the units left behind."""
    groups = _lasting_groups(survivors, num_units)
    return sum(member.allocation.num_bytes for group in groups for member in group.members)


def _lasts(units: set[int], num_units: int) -> bool:
    """Return whether several units have left something, not only the last two: a name may keep what it had before."""
    return len(units) >= min(2, num_units) and (num_units <= 2 or min(units) < num_units - 2)


def _holder_of_old_graph(groups: Iterable[_Group], tensors: Tensors, last_began: int | None) -> Holder | None:
    """Return who holds a graph: of these groups' tensors where it is the user, else of any."""
    # a loss that keeps a graph is itself a number, made at a line that leaves next to nothing
    older = set(chain.from_iterable(group.older_handles() for group in groups))
    old_tensors = {handle: found for handle, found in tensors.items() if handle in older}
    graph = holder_of_graph(old_tensors, MAX_OBJECTS_ASKED)
    if graph is None or not graph.is_users or not graph.adds:
        graph = _better(holder_of_graph(tensors, since=last_began), graph)
    if (graph is None or not graph.adds) and gradients_have_graphs():
        return Holder(GRADIENT_WITH_GRAPH)
    return graph


def _better(found: Holder | None, before: Holder | None) -> Holder | None:
    """Return what was found where it adds, or nothing of the user's was known before: a name may be overwritten."""
    is_known = before is not None and before.is_users
    return before if is_known and not (found is not None and found.is_users and found.adds) else found


def _record(
    group: _Group, unit: str, num_units: int, step: int, tensors: Tensors, graph: Holder | None
) -> SurvivorRecord:
    # those of the last unit may be held by a variable that the next one overwrites
    held = [tensors[handle] for handle in group.older_handles() if handle in tensors]
    # and the oldest may be let go by another thread meanwhile: the youngest is asked for first
    asked = [*held[: MAX_OBJECTS_ASKED - 1], *held[MAX_OBJECTS_ASKED - 1 :][-1:]]
    holders = list(map(_holder_of_storage, reversed(asked)))[::-1]
    known = [found for found in holders if found is not None]
    # what another thread has drawn from a queue lies in its variable for a while
    adding = [found for found in known if found.is_users and found.adds]
    holder = next(iter(adding or known), None)
    holder = holder and _named_hook(holder.of_what_was_made(group.site))
    in_graph = False
    if holder is None:
        holder = next(filter(None, map(holder_of_arrays_over, asked)), None)
    # of several, one may have a name that the next unit overwrites
    unheld = [found for found, of_it in zip(asked, holders, strict=True) if of_it is None and not _is_let_go(found)]
    if unheld and graph is not None and not (holder and holder.adds):
        # what no Python object refers to is saved by a graph, and that hangs on a tensor that one does refer to
        in_graph = not any(referred(same_storage, [same_storage]) for same_storage in unheld)
    largest = max(chain.from_iterable(held), key=torch.Tensor.numel, default=None)
    has_graph = any(tensor.grad_fn is not None for tensor in chain.from_iterable(held))
    keeper = graph if in_graph else holder
    return SurvivorRecord(
        step=step,
        phase=group.phase,
        site=str(group.site or ""),
        holder=f"graph of {graph}" if in_graph else str(holder or ""),
        bytes_per_step=group.bytes_per_unit(num_units),
        num_tensors=len(group.members),
        has_grad_fn=in_graph or has_graph,
        shape=() if largest is None else tuple(largest.shape),
        dtype="" if largest is None else _dtype_name(largest),
        made_by=_source(group.site),
        kept_by="" if keeper is None else keeper.source,
        unit=unit,
    )


def _named_hook(holder: Holder) -> Holder:
    """Return the holder with the hook in whose code its line lies, if it does."""
    if not holder.is_users or HOOK in holder.words:
        return holder
    hook = hook_with_line(holder.path, holder.line)
    return holder if hook is None else replace(holder, words=f"{holder.words}, filled by a line {HOOK}{hook}()")


def _source(site: SourceLine | None) -> str:
    return "" if site is None else source_line(site.path, site.line)


def _is_let_go(same_storage: list[torch.Tensor]) -> bool:
    """Return whether nothing but Python refers to the tensors that share a storage: no graph has saved one."""
    storage = same_storage[0].untyped_storage()
    num_tensors = torch._C._storage_Use_Count(storage._cdata) - 1  # without the storage that was just asked for
    return num_tensors == len(same_storage) and all(
        tensor._use_count() == 1  # type: ignore[attr-defined]
        for tensor in same_storage
    )


def _holder_of_storage(tensors: list[torch.Tensor]) -> Holder | None:
    """Return the user's holder of one of the tensors that share a storage, else any."""
    return users_first(find_holder(tensor, [tensors]) for tensor in tensors)


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def growing_records(
    made_last: Iterable[Survivor],
    first_ends: Iterable[UnitEnd],
    end: UnitEnd,
    unit: str,
    step: int,
    device: ObservableDevice,
) -> list[SurvivorRecord]:
    """Return the tensors that units replace by larger ones, where that is most of what grows; the largest first.

    Args:
        made_last: survivors of the last unit, which ended with `end`.
        first_ends: the same of the first units.
    """
    largest = max(end.made, key=lambda place: end.made[place], default=None)
    earlier = [first for first in first_ends if largest in first.made and first.num_units < end.num_units]
    if not earlier:
        return []
    first = earlier[0]
    grown = {place: end.made[place] - first.made[place] for place in end.made if place in first.made}
    larger = [place for place in grown if grown[place] >= MIN_RISE_BYTES]
    if sum(grown[place] for place in larger) < GROWING_SHARE * (end.allocated_bytes - first.allocated_bytes):
        return []
    groups: dict[Place, _Group] = {place: _Group(*place) for place in larger}
    for survivor in made_last:
        place = place_of(survivor)
        if place in groups:
            groups[place].members.append(survivor)
    tensors = tensors_by_handle(device)
    records = []
    for place in sorted(larger, key=lambda place: -grown[place])[:MAX_RECORDS]:
        record = _record(groups[place], unit, 1, step, tensors, None)
        if record.holder:
            per_unit = grown[place] // (end.num_units - first.num_units)
            records.append(replace(record, holder=f"{GROWING_TENSOR}: {record.holder}", bytes_per_step=per_unit))
    return records


def peak_records(allocations: Iterable[Allocation], phase: Phase, step: int) -> list[SurvivorRecord]:
    """Return which lines made what lived at a phase's peak, the most bytes first; who held it cannot be asked later."""
    sizes: dict[str, list[int]] = {}
    for allocation in allocations:
        sizes.setdefault(str(users_line(allocation.frames) or ""), []).append(allocation.num_bytes)
    largest = sorted(((sum(each), len(each), site) for site, each in sizes.items()), reverse=True)
    return [
        SurvivorRecord(step, phase, site, "", num_bytes, num_tensors, unit=peak_unit(phase))
        for num_bytes, num_tensors, site in largest[:MAX_RECORDS]
        if num_bytes >= MIN_RISE_BYTES
    ]
