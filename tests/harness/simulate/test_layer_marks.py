"""Which layer of a model runs, forwards and backwards, while nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from memory_harness.harness.log.peaks import layer_of
from memory_harness.harness.simulate.layer_marks import LayerMarks, layer_begins
from tests.harness.simulate.test_layer_replay import checkpointed, plain_steps, run


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(torch.nn.Module):
    def __init__(self, *, recomputes: bool = False) -> None:
        super().__init__()
        self.recomputes = recomputes
        self.embed, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
        self.layers = torch.nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recomputes else layer(x)
        return self.head(x)


def marked(model: torch.nn.Module) -> tuple[list[str], list[str]]:
    """Return what is marked during a forward pass, and during the backward pass that follows."""
    noted: list[str] = []
    marks = LayerMarks(noted.append)
    with marks.active():
        out = model(torch.ones(3, 4))
        forwards = noted[1:]
        noted.clear()
        out.sum().backward()
        return forwards, list(noted)


def test_layers_are_marked_as_they_begin_and_end() -> None:
    forwards, backwards = marked(Net())
    assert forwards == ["embed", "", "layers.0", "", "layers.1", "", "head", ""]
    assert backwards == ["head", "layers.1", "layers.0", "embed", ""]


def test_what_follows_a_backward_pass_is_of_no_layer() -> None:
    noted: list[str] = []
    model = Net()
    with LayerMarks(noted.append).active():
        for _ in range(2):
            model(torch.ones(3, 4)).sum().backward()
            assert noted[-1] == ""
        noted.clear()
        model(torch.ones(3, 4))
        assert noted == ["embed", "", "layers.0", "", "layers.1", "", "head", ""]


def test_a_layer_that_recomputes_stays_the_one_that_runs() -> None:
    _, backwards = marked(Net(recomputes=True))
    assert list(dict.fromkeys(backwards)) == ["head", "layers.1", "layers.0", "embed", ""]


@pytest.mark.parametrize(
    ("model", "begins"),
    [
        (Net(), {"embed": "embed", "layers.0": "layers.0", "layers.1": "layers.1", "head": "head"}),
        (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), {"0": "0", "1": "1"}),
        (torch.nn.Sequential(Net(), Block()), {"0": "0", "0.layers.0": "layers.0", "0.layers.1": "layers.1", "1": "1"}),
        (torch.nn.ModuleDict({"body": Block()}), {"body": "body", "body.up": "up", "body.down": "down"}),
    ],
)
def test_where_layers_begin(model: torch.nn.Module, begins: dict[str, str]) -> None:
    found = layer_begins(model)
    assert {name: found[module] for name, module in model.named_modules() if found[module]} == begins


def test_weights_are_of_the_layers_that_modules_are_of() -> None:
    model = Net()
    begins = layer_begins(model)
    for name, module in model.named_modules():
        if begins[module]:
            assert layer_of(f"{name}.weight") == begins[module]


def test_a_call_that_fails_ends_its_layer_and_all_is_put_back() -> None:
    call = torch.nn.Module.__call__
    noted: list[str] = []
    with pytest.raises(RuntimeError), LayerMarks(noted.append).active():
        Net()(torch.ones(3, 5))
    assert noted[-1] == ""
    assert torch.nn.Module.__call__ is call


def test_what_is_put_over_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a user who patches modules amid a phase: nothing of theirs is taken away, and nothing is marked later."""
    noted: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "__call__", torch.nn.Module.__call__)
    with LayerMarks(noted.append).active():
        inner = torch.nn.Module.__call__

        def outer(*args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs)

        monkeypatch.setattr(torch.nn.Module, "__call__", outer)
    assert torch.nn.Module.__call__ is outer
    noted.clear()
    Net()(torch.ones(3, 4)).sum().backward()
    assert not noted


def test_graphs_of_before_are_gone_through_without_marks() -> None:
    noted: list[str] = []
    with LayerMarks(noted.append).active():
        loss = Net()(torch.ones(3, 4)).sum()
    noted.clear()
    loss.backward()
    assert not noted


def test_a_model_is_compiled_once_whether_it_is_marked_or_not() -> None:
    """What is compiled neither goes through the marks nor depends on them."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    import torch._dynamo  # as by `torch.compile` in a script's first lines

    model: Any = torch.compile(Net(), backend=backend, fullgraph=True)
    with LayerMarks(lambda _: None).active():
        model(torch.ones(3, 4))
    model(torch.ones(3, 4))
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        plain_steps,
        lambda *how: checkpointed(*how, use_reentrant=True),
        lambda *how: checkpointed(*how, use_reentrant=False),
    ],
)
def test_replayed_layers_take_the_same_memory_and_say_whose_it_is(script: Any) -> None:
    expected, _ = run(script, replays_layers=False)
    found: set[str] = set()

    def marked_script(device: Any, noted: Any) -> None:
        device.record_allocations(with_peak=True)
        with device.layers_marked():
            script(device, noted)
        found.update(allocation.layer for allocation in device.live_allocations_at_peak())
        device.stop_recording_allocations()

    noted, device = run(marked_script, replays_layers=True)
    assert noted == expected
    assert device.layers.num_replayed
    assert {f"layers.{number}" for number in range(6)} <= found
