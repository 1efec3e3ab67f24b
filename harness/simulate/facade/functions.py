"""Functions of PyTorch that would look for a GPU before they reach its dispatcher, and what stands in for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.utils._device
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from memory_harness.harness.simulate.facade.dispatch import FacadeTracer
from memory_harness.harness.simulate.facade.elsewhere import others_are_followed
from memory_harness.harness.simulate.facade.places import CPU
from memory_harness.harness.simulate.facade.values import StandInFloat, users_place
from memory_harness.harness.simulate.tracer import lies_on_meta

Function = Callable[..., Any]
LAZY: tuple[Any, ...] = (UninitializedParameter, UninitializedBuffer)


class DeviceNames(TorchFunctionMode):
    """Takes a bare index for a card, and tells the tracer when meta itself is asked for."""

    def __init__(self, tracer: FacadeTracer) -> None:
        self._tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            is_index = len(args) == 1 and isinstance(args[0], int)
            return func("cuda", *args) if is_index else func(*args, **(kwargs or {}))
        if not kwargs or "device" not in kwargs:
            return func(*args, **(kwargs or {}))
        device = self._tracer.device_named(kwargs["device"])
        if device is None or device.type != "meta":
            return func(*args, **(kwargs | {"device": device}))
        with self._tracer.asking_for_meta():
            return func(*args, **kwargs)


@contextmanager
def functions_without_gpu(tracer: FacadeTracer) -> Iterator[None]:
    """Within, functions that name a device work though there is none."""
    # remembered from its first call on: PyTorch's own functions, which stand-ins would be left in the place of
    torch.utils._device._device_constructors()
    with ExitStack() as stack:
        for owner, name, function in _replacements(tracer):
            stack.enter_context(patch.object(owner, name, function, create=True))
        tensor = torch.Tensor
        for lazy in LAZY:  # which let nothing else be called
            allowed = [*lazy._allowed_methods, tensor.to, tensor.cuda, tensor.cpu, tensor.untyped_storage]
            stack.enter_context(patch.object(lazy, "_allowed_methods", allowed))
        names = DeviceNames(tracer)
        stack.enter_context(names)
        stack.enter_context(others_are_followed(tracer, names))
        yield


def _replacements(tracer: FacadeTracer) -> list[tuple[Any, str, Any]]:
    from transformers.generation.utils import GenerationMixin

    tensor = torch.Tensor
    return [
        (tensor, "to", _to(tracer, tensor.to)),
        (tensor, "cuda", lambda self, device=None, *_, **__: self.to(_card(device))),
        (tensor, "cpu", lambda self, *_, **__: self.to(CPU)),
        (tensor, "numpy", _numpy(tensor.numpy)),
        (tensor, "item", _item(tracer, tensor.item)),
        (tensor, "tolist", _tolist(tracer, tensor.tolist)),
        (tensor, "__array__", _array(tensor.__array__)),
        (tensor, "pin_memory", lambda self, *_, **__: self),
        (tensor, "is_pinned", lambda self, *_, **__: False),
        (tensor, "record_stream", lambda self, stream: None),
        (tensor, "new_tensor", _new_tensor),
        (torch._tensor_str, "_str", _shown(tracer, torch._tensor_str._str)),
        (torch, "tensor", _made_on_host(tracer, torch.tensor)),
        (torch, "as_tensor", _made_on_host(tracer, torch.as_tensor)),
        (torch, "asarray", _made_on_host(tracer, torch.asarray)),
        (torch, "Generator", _Generator),
        (torch, "compile", _compile(tracer)),
        (torch.cuda, "CUDAGraph", _not_modelled(tracer, "torch.cuda.CUDAGraph")),
        (torch.cuda, "graph", _not_modelled(tracer, "torch.cuda.graph")),
        (torch.cuda, "make_graphed_callables", _not_modelled(tracer, "torch.cuda.make_graphed_callables")),
        (torch.cuda, "MemPool", _not_modelled(tracer, "torch.cuda.MemPool")),
        (torch._C._nn, "_parse_to", _parse_to(tracer, torch._C._nn._parse_to)),
        (torch._C, "_group_tensors_by_device_and_dtype", _grouped(tracer, torch._C._group_tensors_by_device_and_dtype)),
        (torch.nn.Module, "compile", lambda self, *_, **__: None),
        (torch.nn.Module, "cuda", lambda self, device=None: self.to(_card(device))),
        (GenerationMixin, "_beam_search_has_unfinished_sequences", _beams_go_on(tracer)),
        (DataLoader, "__init__", _single_process(DataLoader.__init__)),
    ]


def _new_tensor(
    self: torch.Tensor,
    data: Any,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    requires_grad: bool = False,
) -> torch.Tensor:
    where = self.device if device is None else device
    return torch.tensor(data, dtype=dtype or self.dtype, device=where, requires_grad=requires_grad)


def _to(tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        named = kwargs.get("device", args[0] if args else None)
        device = None if isinstance(named, (torch.Tensor, torch.dtype)) else tracer.device_named(named)
        if isinstance(named, torch.Tensor):
            device = named.device
            kwargs.setdefault("dtype", named.dtype)
        if device is None:
            return original(self, *args, **kwargs)
        rest = args[1:] if args else ()
        if device == self.device:  # PyTorch would compare with meta
            return _converted(original, self, rest, kwargs)
        if _on_card(self) and device.type == "cuda" and self.requires_grad and torch.is_grad_enabled():
            moved: torch.Tensor = _Moved.apply(self, device)
            return _converted(original, moved, rest, kwargs)
        kwargs = kwargs | {"device": device}
        if device.type != "meta":
            return original(self, *_named(rest, kwargs), **kwargs)
        with tracer.asking_for_meta():
            return original(self, *_named(rest, kwargs), **kwargs)

    return to


class _Moved(torch.autograd.Function):
    """A copy on another card; PyTorch's own would leave the gradient there, as both lie on meta."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, card: torch.device) -> torch.Tensor:
        ctx.source = tensor.device
        return tensor.to(card)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0].to(ctx.source), None


def _grouped(tracer: FacadeTracer, original: Function) -> Function:
    """Let optimizers and clipping take the tensors of each card for themselves, which all lie on meta."""

    @functools.wraps(original)
    def grouped(lists: list[list[Any]], with_indices: bool = False) -> dict[Any, Any]:
        if tracer.num_cards == 1:
            return dict(original(lists, with_indices))
        found: dict[Any, Any] = {}
        for (_, dtype), (of_type, indices) in original(lists, True).items():
            for number, first in enumerate(of_type[0]):
                columns, numbers = found.setdefault((first.device, dtype), ([[] for _ in of_type], []))
                numbers.append(indices[number])
                for column, tensors in zip(columns, of_type, strict=True):
                    column.extend(tensors[number : number + 1])
        return found

    return grouped


def _card(device: Any) -> Any:
    """Return what is asked for where a card is meant, the present one by default."""
    return "cuda" if device is None else device


def _parse_to(tracer: FacadeTracer, original: Function) -> Function:
    """Return what reads the arguments of `Module.to`, where a bare index means a card."""

    @functools.wraps(original)
    def parse(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], int):
            args = (tracer.device_named(args[0]), *args[1:])
        if isinstance(kwargs.get("device"), int):
            kwargs["device"] = tracer.device_named(kwargs["device"])
        return original(*args, **kwargs)

    return parse


def _named(rest: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[()]:
    """Put the arguments that follow the device under their names."""
    kwargs.update(zip(("dtype", "non_blocking", "copy"), rest, strict=False))
    return ()


def _converted(original: Function, tensor: torch.Tensor, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """Convert a tensor that stays where it is."""
    options = {name: value for name, value in kwargs.items() if name != "device"}
    _named(rest, options)
    dtype = options.pop("dtype", None) or tensor.dtype
    return original(tensor, dtype, **options)


def _on_card(tensor: torch.Tensor) -> bool:
    return lies_on_meta(tensor) and tensor.device.type == "cuda"


def _numpy(original: Function) -> Function:
    @functools.wraps(original)
    def numpy(self: torch.Tensor, *, force: bool = False) -> Any:
        if _on_card(self) and not force:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                "first."
            )
        return original(self.detach().cpu() if force else self, force=force)

    return numpy


def _item(tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def item(self: torch.Tensor) -> Any:
        """Let the stand-in for a number stay one, which PyTorch would hand on as a plain number."""
        number = original(self)
        is_known = not lies_on_meta(self) or tracer.values.of(self) is not None
        return StandInFloat(number) if isinstance(number, float) and not is_known else number

    return item


def _tolist(tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def tolist(self: torch.Tensor) -> Any:
        return original(tracer.read(self) if lies_on_meta(self) else self)

    return tolist


def _array(original: Function) -> Function:
    @functools.wraps(original)
    def array(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs) if not _on_card(self) else self.numpy()

    return array


def _shown(tracer: FacadeTracer, original: Function) -> Function:
    @functools.wraps(original)
    def text(self: torch.Tensor, **kwargs: Any) -> str:
        """Show the values on the host: PyTorch switches the tracer off to show a tensor."""
        if not lies_on_meta(self):
            return str(original(self, **kwargs))
        shown = str(original(tracer.read(self.detach()), **kwargs))
        return f"{shown[:-1]}, device='{self.device}')" if _on_card(self) else shown

    return text


def _made_on_host(tracer: FacadeTracer, original: Function) -> Function:
    """Return `torch.tensor` and its kin, which make a tensor on the host and move it."""

    @functools.wraps(original)
    def make(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> torch.Tensor:
        device = tracer.device_named(torch.utils._device.CURRENT_DEVICE if device is None else device)
        if isinstance(data, torch.Tensor) and lies_on_meta(data):
            made = data.detach().clone() if original is torch.tensor else data
            if kwargs.get("dtype") is not None:
                made = made.to(kwargs["dtype"])
        else:
            made = original(data, *args, device=CPU, **kwargs)
        if device is not None and device != made.device:
            made = made.to(device)
        return made.requires_grad_() if requires_grad else made

    return make


class _Generator(torch.Generator):
    """A generator of random numbers of any device; the card's draws nothing that counts."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]


def _not_modelled(tracer: FacadeTracer, name: str) -> Function:
    def refuse(*_: Any, **__: Any) -> None:
        raise tracer.refusal(f"{name} allocates in a pool of its own, which is not modelled")

    return refuse


def _beams_go_on(tracer: FacadeTracer) -> Any:
    from transformers.generation.utils import GenerationMixin

    original = GenerationMixin._beam_search_has_unfinished_sequences

    def has_unfinished(scores: Any, finished: Any, next_token_hits_stopping_criteria: Any, *rest: Any) -> bool:
        asked = original(scores, finished, next_token_hits_stopping_criteria, *rest)
        over = tracer.values.of(next_token_hits_stopping_criteria) if lies_on_meta(asked) else ~asked
        if over is None:
            raise tracer.unknown("the end of a search by beams")
        tracer.stand_ins.add("whether a search by beams is over, taken to go on to its greatest length", users_place)
        return not bool(over.all())

    return staticmethod(has_unfinished)


def _compile(tracer: FacadeTracer) -> Function:
    def compile(model: Any = None, **options: Any) -> Any:
        tracer.stand_ins.add("torch.compile, taken as eager", users_place)
        return (lambda function: function) if model is None else model

    return compile


def _single_process(original: Function) -> Function:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        """Load in this process: workers would take nothing of the card's memory, and pinning copies on the host."""
        for name in ("prefetch_factor", "persistent_workers", "pin_memory", "multiprocessing_context", "timeout"):
            kwargs.pop(name, None)
        if "num_workers" in kwargs:
            kwargs["num_workers"] = 0
        original(self, *args, **kwargs)

    return init
