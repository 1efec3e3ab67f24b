"""Operators of a script for a card that is not there: placed, recorded, and followed where values are known."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from memory_harness.harness.simulate.facade.places import CARD, CPU, META
from memory_harness.harness.simulate.facade.stand_ins import StandIns
from memory_harness.harness.simulate.facade.values import (
    KnownValues,
    StandInFloat,
    UnknownValue,
    called_by_library,
    is_small,
    users_place,
)
from memory_harness.harness.simulate.lowering import in_backward
from memory_harness.harness.simulate.results import tensors_among
from memory_harness.harness.simulate.tracer import HOST, EventSink, Lowering, Tracer, lies_on_meta

aten = torch.ops.aten

NOWHERE = "meta"
"""key of storages that code asked for on the meta device"""

MAX_HOST_ELEMENTS = 2**20
"""largest floating-point tensor that is really made on the host: models are built there, and trained elsewhere"""

SAMPLING = {aten.argmax.default: 0, aten.argmin.default: 0, aten.multinomial.default: 0, aten.topk.default: 1,
            aten.sort.default: 1, aten.sort.stable: 1, aten.max.dim: 1, aten.min.dim: 1}  # fmt: skip
"""operators that choose indices by values -> which of their results those are"""

OF_ONE_DEVICE = frozenset(
    {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.embedding.default,
     aten.convolution.default, aten.cat.default, aten.nll_loss_forward.default, aten.native_layer_norm.default,
     aten.gather.default, aten.index_select.default}
)  # fmt: skip
"""operators that CUDA refuses tensors of the host to, beside the pointwise ones"""

COMPARISONS = frozenset(
    getattr(aten, name).Scalar for name in ("gt", "ge", "lt", "le", "eq", "ne")
)  # fmt: skip
"""with a number"""

FINITE = {aten.isnan.default: False, aten.isinf.default: False, aten.isfinite.default: True}
"""questions about values that a sound training answers one way; isfinite and isinf may reach us in parts"""

Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


class AllCards(BaseException):
    """Ends a run as the first of several ranks: the script lays a model over all cards, as one process does.

    No script's `except Exception` may catch it.
    """


class FacadeTracer(Tracer):
    """Reports allocations on the card; tensors on the host and on meta are told apart from those."""

    def __init__(self, sink: EventSink, lowerings: dict[Any, Lowering]) -> None:
        super().__init__(sink, lowerings, META)
        self.depth = 0
        """operators that are running: PyTorch's own code under the dispatcher sees the devices that are there"""
        self.asks_for_meta = False
        """while a function runs that was given meta as the device"""
        self.is_in_reducer = False
        """while DistributedDataParallel's own code runs, to which a tensor's device is meta"""
        self.has_joined = False
        """whether the script has met the other ranks that it was started with"""
        self.joins_by_nccl = False
        """whether it has by NCCL, which is what CUDA's tensors are sent by where a script names nothing"""
        self.chose_cards = False
        """whether the script has left itself some cards of several, `cuda:0` being another one to each rank then"""
        self.num_visible = 1
        """cards that the script sees: of several ranks each has one"""
        self.wants_all_cards = False
        """whether the script has asked for another card than this rank's"""
        self.values = KnownValues()
        self.stand_ins = StandIns()
        self._operators: dict[int, _Operator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Arguments = (), kwargs: Keywords | None = None
    ) -> Any:
        if torch.is_inference_mode_enabled() and _is_made_of_others(func):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to this rank's part comes by here then
        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            return _run_for_shapes(func, args, kwargs or {})
        self.depth += 1
        try:
            with torch._C.DisableTorchFunction():
                return self._dispatch(func, args, kwargs or {})
        finally:
            self.depth -= 1

    def device_named(self, value: Any) -> torch.device | None:
        """Return the device that an argument names, an index being that of a card; None where it names none.

        Raises RuntimeError, as CUDA does, for a card that this process does not have.
        """
        if isinstance(value, torch.device):
            return value if value.type != "cuda" else self._card_numbered(value.index)
        if isinstance(value, str):
            return self.device_named(torch.device(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return self._card_numbered(value)
        return None

    def _card_numbered(self, index: int | None) -> torch.device:
        if index is None:
            return torch.device("cuda", self.present_card)
        if 0 <= index < self.num_cards:
            return torch.device("cuda", index)
        if index < self.num_visible and not self.has_joined:
            raise self.all_cards()
        raise RuntimeError(
            f"CUDA error: invalid device ordinal ({index}): a dry run follows one process on the first card"
            if self.num_cards == 1
            else f"CUDA error: invalid device ordinal ({index}): there are {self.num_cards} cards"
        )

    def all_cards(self) -> AllCards:
        """Return what ends a run as one of several ranks whose script wants all cards for itself."""
        self.wants_all_cards = True
        return AllCards()

    def _dispatch(self, func: Any, args: Arguments, kwargs: Keywords) -> Any:
        tensors = tensors_among((*args, *kwargs.values()))
        device = kwargs.get("device")
        if self._paused:
            return func(*args, **(kwargs if device is None or device.type != "cuda" else kwargs | {"device": META}))
        place = self._place_of_result(func, tensors, device)
        if self.num_cards > 1 and place is CARD:
            self.go_to(self._card_of_result(tensors, device))
        if device is not None:
            if place is CPU and any(map(lies_on_meta, tensors)):
                return self._read(func, tensors[0], kwargs)
            kwargs = kwargs | {"device": CPU if place is CPU else META}
            if place is CPU and _is_large_weight(func, args, kwargs, tensors):
                place, kwargs = HOST, kwargs | {"device": META}
        if place is CARD:
            return self._run_on_card(func, args, kwargs, tensors)
        if place is CPU:
            return func(*args, **kwargs)
        if place is HOST:
            return self._run_without_values(func, args, kwargs, tensors)
        out = func(*args, **kwargs)
        self._place(out, NOWHERE)
        return out

    def _place_of_result(self, func: Any, tensors: list[torch.Tensor], device: torch.device | None) -> Any:
        """Return CARD, CPU, HOST (without values) or META."""
        if device is not None and device.type == "cuda":
            return CARD
        places = {self._key_place(tensor) for tensor in tensors if lies_on_meta(tensor)}
        if device is None:
            for place in (CARD, HOST, META):
                if place in places:
                    return place
            return CPU
        if device.type == "cpu":
            return HOST if HOST in places else CPU
        if self.asks_for_meta:
            return META
        if places:
            return CARD if CARD in places else places.pop()
        # PyTorch's own code asks for "the device of that tensor"
        is_converted = bool(tensors) or func is aten.scalar_tensor.default
        return CARD if is_converted or self.is_in_reducer or in_backward() else META

    def _card_of_result(self, tensors: list[torch.Tensor], device: torch.device | None) -> int:
        """Return the card that an operator's result lies on."""
        if device is not None and device.type == "cuda":
            return self.present_card if device.index is None else device.index
        # PyTorch's own code makes tensors from nothing where those lie that it works with
        cards = (card for card in map(self.card_of, tensors) if card is not None)
        return next(cards, self.told_card)

    def _key_place(self, tensor: torch.Tensor) -> Any:
        key = self.key_of(tensor)
        if key == HOST:
            return HOST
        return META if key is None or key == NOWHERE else CARD

    def place_of(self, tensor: torch.Tensor) -> torch.device:
        """Return the device that a tensor on meta stands for; of one that is shared out, that of the part here."""
        if isinstance(tensor, DTensor):
            tensor = tensor._local_tensor
        place = self._key_place(tensor)
        if place is CARD and self.num_cards > 1:
            return torch.device("cuda", self.card_of(tensor) or 0)
        return CPU if place is HOST else place

    def track(self, value: Any) -> None:
        """Begin an allocation on the card for each storage in `value` not seen before."""
        for tensor in tensors_among((value,)):
            if lies_on_meta(tensor):
                self._track_tensor(tensor)

    @property
    def has_allocated(self) -> bool:
        """Whether anything was ever made on the card."""
        return self._next_key > 0

    def _track_tensor(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages and not storage.nbytes():
            self._remember(storage, self.new_key())  # nothing is allocated, but it has a place
            self._note_card(storage)
        else:
            super()._track_tensor(tensor)

    @contextmanager
    def asking_for_meta(self) -> Iterator[None]:
        """Within, meta means meta: code asks for tensors that lie nowhere."""
        before, self.asks_for_meta = self.asks_for_meta, True
        try:
            yield
        finally:
            self.asks_for_meta = before

    @contextmanager
    def in_reducer(self) -> Iterator[None]:
        """Within, meta means the card: code makes tensors where others lie."""
        before, self.is_in_reducer = self.is_in_reducer, True
        try:
            yield
        finally:
            self.is_in_reducer = before

    def place_on_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """Let a tensor on meta stand for one on the host, and return it."""
        self._remember(tensor.untyped_storage(), HOST)
        return tensor

    def place_copy(self, copy: torch.UntypedStorage, source: torch.UntypedStorage) -> None:
        """Let a storage lie where the one lies that it was copied from."""
        key = self.key_of_storage(source)
        if key is None or key in (HOST, NOWHERE):
            self._remember(copy, key)
            return
        self.go_to(self._cards.get(source._cdata, 0))
        self._remember(copy, self.new_key())
        self._note_card(copy)
        self.sink.alloc(self.key_of_storage(copy), copy.nbytes(), self.site())

    def _place(self, value: Any, key: Hashable) -> None:
        for tensor in tensors_among((value,)):
            storage = tensor.untyped_storage()
            if lies_on_meta(tensor) and storage._cdata not in self._storages:
                self._remember(storage, key)

    def _remember(self, storage: torch.UntypedStorage, key: Hashable) -> None:
        self._storages[storage._cdata] = (weakref.ref(storage, self._on_death(storage._cdata)), key)

    def _on_death(self, cdata: int) -> Callable[[Any], None]:
        end_allocation = super()._on_death(cdata)

        def end(reference: Any) -> None:
            self.values.forget(cdata)
            end_allocation(reference)

        return end

    # On the card

    def _run_on_card(self, func: Any, args: Arguments, kwargs: Keywords, tensors: list[torch.Tensor]) -> Any:
        operator = self._operators.get(id(func)) or self._describe(func)
        if operator.reads_number:
            return self._read_number(tensors[0])
        if func is aten.copy_.default and not lies_on_meta(args[0]):
            return self._read_into(args[0], args[1])
        if func is aten.index.Tensor:
            args = (args[0], self._without_masks(args[1]), *args[2:])
            tensors = tensors_among(args)
        elif operator.needs_one_device:
            self._check_places(tensors)
        elif operator.hangs_on_values and kwargs.get("output_size") is None:
            return self._run_by_values(func, args, kwargs, tensors)
        if operator.is_convolution:
            self.stand_ins.add("a convolution, without the workspace that cuDNN takes for it", users_place)
        if operator.only_changes:
            out = args[0]
        elif operator.returns_nothing:
            out = None
        else:
            out = self._allocate(operator, args, kwargs)
        self._track_result(out, args)
        self._follow(operator, args, kwargs, tensors, out)
        return out

    def _allocate(self, operator: _Operator, args: Arguments, kwargs: Keywords) -> Any:
        if operator.lowering is not None:
            return operator.lowering(self, operator.func, args, kwargs)
        try:
            return self.run(operator.func, args, kwargs)
        except NotImplementedError:
            raise self.refusal(
                f"{operator.func.name()} is an operator that nobody here knows, nor what it allocates"
            ) from None

    def _check_places(self, tensors: list[torch.Tensor]) -> None:
        """Raise what CUDA raises where some of the tensors lie on the host; single numbers may."""
        for tensor in tensors:
            if tensor.dim() and (not lies_on_meta(tensor) or self._key_place(tensor) is HOST):
                raise _of_two_devices("cuda:0", "cpu")
        if self.num_cards > 1:
            self._check_cards(tensors)

    def _check_cards(self, tensors: list[torch.Tensor]) -> None:
        """Raise the same where they lie on several cards."""
        cards = {self.card_of(tensor) for tensor in tensors if tensor.dim()} - {None}
        if len(cards) > 1:
            one, other, *_ = cards
            raise _of_two_devices(f"cuda:{one}", f"cuda:{other}")

    def _describe(self, func: Any) -> _Operator:
        operator = self._operators[id(func)] = _Operator(func, self._lowerings.get(func))
        return operator

    def _without_masks(self, indices: Any) -> list[torch.Tensor | None]:
        """Return indices in which boolean masks are the positions that they select, as CUDA's indexing makes them."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            if index is None or index.dtype not in (torch.bool, torch.uint8):
                found.append(index if index is None or lies_on_meta(index) else self.to_card(index))
                continue
            self.num_asked += 1
            host = self._host_value(index)
            if host is None:
                raise self.unknown("how many elements a mask selects")
            positions = self.to_card(host.nonzero())
            for dimension in range(index.dim()):
                found.append(positions.select(1, dimension))
        return found

    def _run_by_values(self, func: Any, args: Arguments, kwargs: Keywords, tensors: list[torch.Tensor]) -> Any:
        """Run an operator whose result's size hangs on values."""
        self.num_asked += 1
        hosts = self._on_host((args, kwargs), tensors)
        if hosts is None:
            raise self.unknown(f"the result of {func._schema.name.removeprefix('aten::')}")
        out = func(*hosts[0], **hosts[1])
        if isinstance(out, torch.Tensor):
            return self.to_card(out)
        if isinstance(out, tuple):
            return tuple(map(self.to_card, out))
        return out

    def to_card(self, host: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the card with the values of one on the host."""
        out = torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device=META)
        self.track(out)
        self.values.keep(out, host)
        return out

    def _follow(
        self, operator: _Operator, args: Arguments, kwargs: Keywords, tensors: list[torch.Tensor], out: Any
    ) -> None:
        """Let the values that are known be what the operator has made of them."""
        if operator.finds_no_overflow or operator.takes_storage:
            return  # what is known hangs on the storage
        results = tensors_among((out,))
        if operator.is_random:
            self._follow_random(operator, args, kwargs, results)
            return
        if operator.chosen is not None:
            self.stand_ins.add("an index chosen by values (a sampled token, the best of several)", users_place)
            self.values.keep_constant(results[operator.chosen], args[0].shape[-1] // 2 if args[0].dim() else 0)
        elif operator.answer is not None:
            self.values.keep_constant(results[0], operator.answer)
        elif not tensors:
            self._keep_made(operator.func, args, kwargs, results)
        elif operator.changed or _are_followed(results):
            self._follow_values(operator, args, kwargs, tensors, results)

    def _follow_random(
        self, operator: _Operator, args: Arguments, kwargs: Keywords, results: list[torch.Tensor]
    ) -> None:
        """Draw integers, such as ids made up on the card, as the host would; other numbers are not known."""
        self.forget([args[position] for position in operator.changed])
        if tensors_among(args) or not _are_followed(results) or results[0].is_floating_point():
            return
        self.stand_ins.add("integers drawn at random on the card, other ones here", users_place)
        state = torch.get_rng_state()  # the card's generator is another one
        on_host = kwargs | {"device": CPU} | ({"generator": None} if "generator" in kwargs else {})
        self.values.keep(results[0], operator.func(*args, **on_host))
        torch.set_rng_state(state)

    def _follow_values(
        self,
        operator: _Operator,
        args: Arguments,
        kwargs: Keywords,
        tensors: list[torch.Tensor],
        results: list[torch.Tensor],
    ) -> None:
        if operator.func is aten.copy_.default and _fills_storage(args[0]):
            self._follow_copy(args[0], args[1])
            return
        hosts = self._on_host((args, kwargs), tensors)
        if hosts is not None:
            self._compute(operator.func, hosts, results, is_in_place=bool(operator.changed))
            return
        if operator.compares and not args[0].dim() and args[0].is_floating_point():
            with self.paused():
                of_one = operator.func(torch.ones((), device=CPU), *args[1:], **kwargs)
            self.values.answers[results[0].untyped_storage()._cdata] = bool(of_one)
        self.forget([args[position] for position in operator.changed if position < len(args)])

    def _follow_copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Let a tensor have the values of another one, whatever it had."""
        host = self._host_value(source)
        self.forget([target])
        if host is not None:
            self.values.keep(target, host)

    def follow_received(self, received: list[torch.Tensor], sent: list[torch.Tensor]) -> None:
        """Let what comes from other ranks be what this one sends to them, as often as it has room for that."""
        self.forget(received)
        host = self._host_value(sent[0]) if len(sent) == 1 else None
        if host is None or not host.numel():
            return
        for tensor in received:
            times = -(-tensor.numel() // host.numel())
            self.values.keep(tensor, host.flatten().repeat(times)[: tensor.numel()].view(tensor.shape))

    def forget(self, values: Sequence[Any]) -> None:
        """Drop what is known of the tensors among the values: something has written to them."""
        for tensor in tensors_among(values):
            self.values.forget(tensor.untyped_storage()._cdata)

    def _compute(self, func: Any, hosts: Any, results: list[torch.Tensor], *, is_in_place: bool) -> None:
        if is_in_place:
            func(*hosts[0], **hosts[1])
            return
        if all(self.values.of(result) is not None for result in results):
            return  # views of what is known
        try:
            computed = tensors_among((func(*hosts[0], **hosts[1]),))
        except (RuntimeError, NotImplementedError):
            return  # the CPU has no such operator
        for result, host in zip(results, computed, strict=True):
            self.values.keep(result, host)

    def _keep_made(self, func: Any, args: Arguments, kwargs: Keywords, results: list[torch.Tensor]) -> None:
        """Remember the values of a tensor made of numbers alone."""
        if func._schema.name in ("aten::zeros", "aten::ones", "aten::full"):
            value = args[1] if func._schema.name == "aten::full" else int(func._schema.name == "aten::ones")
            self.values.keep_constant(results[0], value)
        elif _are_followed(results) and func._schema.name not in ("aten::empty", "aten::empty_strided"):
            self.values.keep(results[0], func(*args, **kwargs | {"device": CPU}))

    def _host_value(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return self.values.of(tensor) if lies_on_meta(tensor) else tensor

    def _on_host(self, arguments: Any, tensors: list[torch.Tensor]) -> Any:
        """Return arguments with the values of their tensors; None where one is not known."""
        by_id: dict[int, torch.Tensor] = {}
        for tensor in tensors:
            host = self._host_value(tensor)
            if host is None:
                return None
            by_id[id(tensor)] = host
        return _replaced(arguments, by_id, CPU)

    # From the card, and on the host

    def _read_number(self, tensor: torch.Tensor) -> Any:
        self.num_asked += 1
        host = self._host_value(tensor)
        if host is not None:
            return host.item()
        answer = self._assumed_answer(tensor)
        if answer is not None:
            return answer
        if not tensor.is_floating_point():
            raise self.unknown("a count or a condition")
        self.stand_ins.add("a number read from the card, taken as 1", users_place)
        return StandInFloat(1.0)

    def _assumed_answer(self, tensor: torch.Tensor) -> Any:
        """Return the answer to a library's question that has one; None where there is none."""
        if self.assumed_value is not None:
            return self.assumed_value
        answer = self.values.answers.get(tensor.untyped_storage()._cdata)
        if answer is None or not called_by_library():
            return None
        self.stand_ins.add("a condition in a library, answered as for a number of 1", users_place)
        return answer

    def unknown(self, what: str) -> UnknownValue:
        """Return the error that ends a run for want of a value."""
        return self.refusal(f"{what} hangs on values that do not exist without a GPU")

    def refusal(self, why: str) -> UnknownValue:
        """Return the error that ends a run which could only go on by a guess."""
        error = UnknownValue(
            f"{why}; take this line out of the way where the environment variable MEMORY_HARNESS_DRY_RUN is set",
            users_place(),
        )
        self.stand_ins.failure = self.stand_ins.failure or error
        return error

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy on the host of a tensor on the card: its values, or ones and zeros for what is not known."""
        self.num_asked += 1
        host = self._host_value(tensor)
        if host is not None:
            return host.clone()
        self.stand_ins.add("a tensor copied to the host, taken as ones (small) or zeros", users_place)
        make = torch.ones if is_small(tensor) else torch.zeros
        return make(tensor.shape, dtype=tensor.dtype, device=CPU)

    def _read(self, func: Any, tensor: torch.Tensor, kwargs: Keywords) -> torch.Tensor:
        if self._key_place(tensor) is not CARD:
            out: torch.Tensor = func(tensor, **kwargs | {"device": META})
            return self.place_on_host(out)
        host = self.read(tensor)
        dtype = kwargs.get("dtype")
        return host if dtype is None else host.to(dtype)

    def _read_into(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return target.copy_(self.read(source))

    def _run_without_values(self, func: Any, args: Arguments, kwargs: Keywords, tensors: list[torch.Tensor]) -> Any:
        operator = self._operators.get(id(func)) or self._describe(func)
        if operator.reads_number:
            return self._read_number(tensors[0])
        if operator.hangs_on_values and kwargs.get("output_size") is None:
            raise self.unknown(f"the result of {func._schema.name.removeprefix('aten::')}")
        if operator.changed and isinstance(args[0], torch.Tensor) and not lies_on_meta(args[0]):
            return self._read_into(args[0], args[1]) if func is aten.copy_.default else args[0]
        # the CPU's kernels would read the memory that is not there
        without = {id(tensor): tensor if lies_on_meta(tensor) else self._layout_of(tensor) for tensor in tensors}
        args, kwargs = _replaced((args, kwargs), without, META)
        out = func(*args, **kwargs)
        self._place(out, HOST)
        return out

    def _layout_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the host like one there, without its values."""
        return self.place_on_host(torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META))


def _of_two_devices(one: str, other: str) -> RuntimeError:
    return RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {one} and {other}!"
    )


def _replaced(value: Any, by_id: dict[int, torch.Tensor], device: torch.device) -> Any:
    """Return arguments with other tensors, and another device for whichever they name."""
    if isinstance(value, torch.Tensor):
        return by_id[id(value)]
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(member, by_id, device) for member in value)
    if isinstance(value, dict):
        return {name: _replaced(member, by_id, device) for name, member in value.items()}
    return device if isinstance(value, torch.device) else value


def _fills_storage(tensor: torch.Tensor) -> bool:
    """Return whether nothing else lies in a tensor's memory."""
    return tensor.nbytes == tensor.untyped_storage().nbytes() and tensor.is_contiguous()


def _are_followed(results: list[torch.Tensor]) -> bool:
    return bool(results) and all(map(is_small, results))


class _Operator:
    """What is to be known of an operator each time that it runs; found by its id, since operators hash slowly."""

    def __init__(self, func: Any, lowering: Lowering | None) -> None:
        by_values = torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags
        self.func = func
        self.lowering = lowering
        self.reads_number = func is aten._local_scalar_dense.default
        self.hangs_on_values = by_values
        """the size of its result does, unless it is given one"""
        self.chosen = SAMPLING.get(func)
        self.answer = FINITE.get(func)
        self.needs_one_device = torch.Tag.pointwise in func.tags or func in OF_ONE_DEVICE
        self.is_random = torch.Tag.nondeterministic_seeded in func.tags and self.chosen is None
        self.compares = func in COMPARISONS
        self.finds_no_overflow = func is aten._amp_foreach_non_finite_check_and_unscale_.default
        self.is_convolution = func in (aten.convolution.default, aten.convolution_backward.default)
        self.changed = _changed_arguments(func)
        self.only_changes = _only_changes_first(func)
        self.takes_storage = func._schema.name == "aten::set_"
        self.returns_nothing = bool(self.changed) and not func._schema.returns


def _run_for_shapes(func: Any, args: Arguments, kwargs: Keywords) -> Any:
    """Run an operator of code that asks for the shapes of its result alone, as DTensor does."""
    return func(*args, **(kwargs if kwargs.get("device") is None else kwargs | {"device": CPU}))


def _is_made_of_others(func: Any) -> bool:
    """Return whether an operator runs others; only in inference mode are such ones dispatched themselves."""
    composite = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), composite))


def _only_changes_first(func: Any) -> bool:
    """Return whether an operator writes values into its first argument and returns that: without values, nothing."""
    changes_layout = torch.Tag.inplace_view in func.tags or func._schema.name in ("aten::set_", "aten::resize_")
    returns = [str(value.type) for value in func._schema.returns]
    return _changed_arguments(func) == (0,) and returns == ["Tensor"] and not changes_layout


def _changed_arguments(func: Any) -> tuple[int, ...]:
    """Return the positions of the arguments that an operator writes to."""
    changed = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            changed.append(position)
    return tuple(changed)


def _is_large_weight(func: Any, args: Arguments, kwargs: Keywords, tensors: list[torch.Tensor]) -> bool:
    """Return whether a tensor that is to be made on the host is a large one of numbers nobody will ask for."""
    if func is aten._to_copy.default or (tensors and lies_on_meta(tensors[0])):
        return False
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    if not dtype.is_floating_point:
        return False
    like = tensors[0].shape if tensors and func._schema.name.endswith("_like") else None
    size = like if like is not None else _size_among(args)
    return size is not None and _num_elements(size) > MAX_HOST_ELEMENTS


def _size_among(args: Arguments) -> Any:
    for value in args:
        if isinstance(value, (list, tuple)) and all(isinstance(member, int) for member in value):
            return value
    return None


def _num_elements(size: Any) -> int:
    count = 1
    for length in size:
        count *= length
    return count
