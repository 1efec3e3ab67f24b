"""Remembered results of operators on the meta device: like those that PyTorch finds out, in memory of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from memory_harness.harness.simulate.results import MetaResults

aten = torch.ops.aten

HALF = torch.empty(2, 3, 4, dtype=torch.float16, device="meta")
TRANSPOSED = torch.empty(2, 4, 3, dtype=torch.float16, device="meta").transpose(1, 2)
COLUMN = torch.empty(3, 1, dtype=torch.float32, device="meta")
WHOLE = torch.empty(2, 3, dtype=torch.int64, device="meta")

Call = tuple[Any, tuple[Any, ...], dict[str, Any]]

CALLS: tuple[Call, ...] = (
    (aten.mul.Tensor, (HALF, COLUMN), {}),
    (aten.mul.Tensor, (TRANSPOSED, HALF), {}),
    (aten.add.Tensor, (WHOLE, 1), {}),
    (aten.add.Tensor, (WHOLE, 1.0), {}),
    (aten.add.Tensor, (WHOLE, True), {}),
    (aten.cat.default, ([HALF, TRANSPOSED], 1), {}),
    (aten._to_copy.default, (TRANSPOSED,), {"dtype": torch.float32}),
    (aten._to_copy.default, (TRANSPOSED,), {"dtype": torch.float64}),
    (aten.clone.default, (TRANSPOSED,), {}),
    (aten.clone.default, (TRANSPOSED,), {"memory_format": torch.contiguous_format}),
    (aten.native_dropout.default, (HALF, 0.1, True), {}),
    (aten._foreach_sqrt.default, ([HALF, COLUMN],), {}),
    (aten.zeros.default, ([2, 5],), {"device": torch.device("meta")}),
)


def layouts(result: Any) -> list[tuple[Any, ...]]:
    tensors = [result] if isinstance(result, torch.Tensor) else list(result)
    return [(t.shape, t.stride(), t.dtype, t.device.type, t.untyped_storage().nbytes()) for t in tensors]


def memory(result: Any) -> set[int]:
    tensors = [result] if isinstance(result, torch.Tensor) else list(result)
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def test_results_made_anew_are_those_of_the_operator() -> None:
    results = MetaResults()
    for _ in range(3):
        for func, args, kwargs in CALLS:
            expected, found = func(*args, **kwargs), results.run(func, args, kwargs)
            assert layouts(found) == layouts(expected), func
            assert type(found) is type(expected)


def test_results_made_anew_share_no_memory() -> None:
    results = MetaResults()
    for func, args, kwargs in CALLS:
        kept = [results.run(func, args, kwargs) for _ in range(3)]
        assert len(set.union(*map(memory, kept))) == 3 * len(memory(kept[0])), func


@pytest.mark.parametrize(
    "run",
    [
        lambda results, tensor: results.run(aten.view.default, (tensor, [6, 4]), {}),
        lambda results, tensor: results.run(aten._unsafe_view.default, (tensor, [6, 4]), {}),
        lambda results, tensor: results.run(aten.add_.Tensor, (tensor, 1), {}),
    ],
)
def test_views_and_operators_in_place_keep_the_memory_of_their_argument(
    run: Callable[[MetaResults, torch.Tensor], torch.Tensor],
) -> None:
    results = MetaResults()
    for _ in range(3):
        tensor = torch.empty_like(HALF)
        assert memory(run(results, tensor)) == memory(tensor)


def test_another_default_type_gives_another_result() -> None:
    results = MetaResults()
    kwargs = {"device": torch.device("meta")}
    assert results.run(aten.zeros.default, ([2],), kwargs).dtype is torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert results.run(aten.zeros.default, ([2],), kwargs).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_tensors_with_values_are_computed() -> None:
    results = MetaResults()
    for number in (1.0, 2.0):
        assert results.run(aten.add.Tensor, (torch.full((2,), number), 1), {}).tolist() == [number + 1] * 2
