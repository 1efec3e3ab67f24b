"""What a model of anybody's says of its weights: experts that stay wide beside linear layers in 4 bits."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from memory_harness.harness.observe.facts import (
    called_with_shape,
    model_facts,
    sizes_of_scores,
    tensors_in,
)


class Mixture(nn.Module):
    """Experts in one weight, as transformers keeps them, and a linear layer that 4-bit loading has packed."""

    def __init__(self, dtype: torch.dtype, *, is_packed: bool) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.zeros(4, 8, 16, dtype=dtype))
        self.proj = nn.Linear(16, 16)
        if is_packed:
            self.proj.weight.quant_state = SimpleNamespace(shape=(16, 16))


def test_experts_beside_a_packed_layer_are_counted_in_bytes():
    facts = model_facts(Mixture(torch.bfloat16, is_packed=True))
    assert (facts.num_expert_parameters, facts.expert_bytes) == (4 * 8 * 16, 2 * 4 * 8 * 16)
    assert model_facts(Mixture(torch.float32, is_packed=True)).expert_bytes == 4 * 4 * 8 * 16


def test_experts_of_a_model_that_is_not_packed_are_as_wide_as_all():
    assert model_facts(Mixture(torch.bfloat16, is_packed=False)).expert_bytes == 0


def test_a_model_that_is_not_wrapped_has_no_buckets():
    assert model_facts(nn.Linear(4, 4)).gradient_bucket_bytes == 0


def padded(*rows: list[int]) -> tuple[int, ...]:
    shape = called_with_shape([torch.tensor(rows)], with_lengths=True)
    assert shape is not None
    return shape.lengths


def test_rows_that_end_in_one_number_are_padded_with_it():
    assert padded([5, 6, 0, 0, 0, 0], [5, 6, 7, 8, 0, 0]) == (2, 4)
    assert padded([5, 6, 0, 0], [5, 6, 7, 8]) == (2, 4)


def test_rows_that_end_as_they_like_have_no_padding():
    assert padded([5, 6, 7, 8], [5, 6, 7, 9]) == ()
    assert padded([5, 6, 7, 2], [5, 6, 8, 2]) == ()
    assert padded([0, 0, 0, 0], [5, 6, 7, 8]) == (4, 4)


def masked(*rows: list[int]) -> tuple[int, ...]:
    mask = torch.tensor(rows)
    shape = called_with_shape([torch.randn(*mask.shape, 5), mask], with_lengths=True)
    assert shape is not None
    return shape.lengths


def test_a_mask_tells_how_long_rows_of_features_are():
    assert masked([1, 1, 0, 0], [1, 1, 1, 0]) == (2, 3)
    assert masked([0, 0, 1, 1], [0, 0, 0, 0]) == (2, 4)


def test_what_is_no_mask_tells_nothing():
    assert masked([1, 0, 1, 0], [1, 1, 1, 0]) == ()  # labels of each position
    assert masked([3, 2, 1, 0], [3, 2, 0, 0]) == ()
    assert masked([1, 0], [1, 1]) == ()  # which keys a query may see


def test_what_has_a_number_of_layers_is_no_cache():
    assert tensors_in({"settings": SimpleNamespace(layers=4), "ids": torch.zeros(2)})[0].shape == (2,)


def test_scores_for_each_row_of_an_embedding_tell_the_vocabulary():
    model = nn.ModuleList([nn.Embedding(50, 8), nn.Embedding(12, 8), nn.Linear(8, 8)])
    assert sizes_of_scores(model, {"logits": torch.zeros(2, 3, 50)}) == (50, 8)


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 8), torch.zeros(50), torch.zeros(2, 50, dtype=torch.long)])
def test_what_is_no_score_for_each_row_tells_no_vocabulary(output):
    assert sizes_of_scores(nn.ModuleList([nn.Embedding(50, 8), nn.Embedding(8, 8)]), output) == (0, 0)
