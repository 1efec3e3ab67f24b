"""GRPO's log-probabilities and loss: in tiles as in whole, and what its loss asks for."""

from types import SimpleNamespace

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.techniques import group_policy
from memory_harness.harness.techniques.group_policy import policy_loss, tiled_log_probs, whole_log_probs

B, L, C, H, V = 2, 9, 4, 8, 50
DEVICE = SimulatedDevice(find_card("h200"), 2**40, computes=True)


class _Model(torch.nn.Module):
    """A model up to its head, as transformers' are laid out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = torch.nn.Embedding(V, H), torch.nn.Linear(H, V, bias=False)

    def model(self, input_ids):
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids))

    def get_output_embeddings(self):
        return self.head

    def logits(self, input_ids):
        return self.head(self.embedding(input_ids))[:, :-1][:, -C:]


@pytest.mark.parametrize(("rows", "words"), [(4096, 32768), (3, 16)], ids=["one tile", "many tiles"])
def test_tiles_give_the_log_probabilities_and_gradients_of_whole_logits(rows, words, monkeypatch):
    monkeypatch.setattr(group_policy, "TILE_TOKENS", rows)
    monkeypatch.setattr(group_policy, "TILE_WORDS", words)
    model, ids = _Model(), torch.randint(0, V, (B, L), generator=torch.Generator().manual_seed(1))
    weights = torch.rand(B, C, generator=torch.Generator().manual_seed(2))
    found = []
    for tiled in (False, True):
        model.zero_grad()
        if tiled:
            log_probs = tiled_log_probs(model, {"input_ids": ids}, C, torch.float32, DEVICE)
        else:
            log_probs = whole_log_probs(model.logits(ids), ids[:, -C:], with_entropy=True)
        (log_probs * weights).sum().backward()
        found.append((log_probs.detach(), *(parameter.grad.clone() for parameter in model.parameters())))
    for whole, tiles in zip(*found, strict=True):
        torch.testing.assert_close(tiles, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_logits_give_what_log_softmax_gives(dtype):
    logits = torch.randn(B, C, V, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.randint(0, V, (B, C), generator=torch.Generator().manual_seed(1))
    expected = torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(whole_log_probs(logits, targets, with_entropy=False), expected)


def test_the_loss_raises_what_was_generated_and_stops_where_the_policy_has_moved_too_far():
    log_probs = torch.zeros(1, 2, requires_grad=True)
    policy_loss(log_probs, torch.tensor([[0.0, -1.0]]), None, 0.0).backward()
    assert log_probs.grad.tolist() == [[-1.0, 0.0]]


def test_straying_from_the_reference_costs_beta_times_the_divergence():
    log_probs, reference = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]])
    without = policy_loss(log_probs, None, None, 0.0)
    apart = reference - log_probs
    expected = without + 0.5 * (apart.exp() - apart - 1).sum()
    torch.testing.assert_close(policy_loss(log_probs, None, reference, 0.5), expected)
