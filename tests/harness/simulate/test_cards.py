"""A model whose layers lie on several cards takes on each what lies and runs there."""

import pytest
import torch

from memory_harness.configs.cards import find_card
from memory_harness.configs.errors import ConfigError
from memory_harness.configs.preset import load_preset
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import PhaseRecord
from memory_harness.harness.observe.recorder import PhaseRecorder
from memory_harness.harness.simulate.cards import hooks_move_between_cards
from memory_harness.harness.simulate.memory import UNLIMITED
from memory_harness.harness.simulate.trace import FREE, SWITCH, TraceRecorder, on_card
from memory_harness.harness.simulate.tracer import Place
from memory_harness.harness.strategies import qlora
from memory_harness.harness.strategies.compiled import CompiledStrategy
from memory_harness.harness.strategies.qlora import QLoraStrategy
from memory_harness.harness.strategies.split import join_layers, place_of
from memory_harness.harness.train.loop import evaluate_batch, load, train_step
from memory_harness.harness.train.run import simulate_card
from memory_harness.probes.plan.predict import uniform_batch

TINY = load_preset("smoke_cpu").with_fields(
    tensors="fake", device="simulated", dtype="bfloat16", gpu="l4", num_gpus=2, sharding="split"
)


def test_of_a_phase_only_what_happens_on_the_card_is_left():
    events = [
        (1, 10, ()), (None, SWITCH, Place(1)), (2, 20, ()), (1, FREE, None), (None, SWITCH, Place(0)), (3, 30, ()),
    ]  # fmt: skip
    assert on_card(events, 0) == [(1, 10, ()), (1, FREE, None), (3, 30, ())]
    assert on_card(events, 1) == [(2, 20, ()), (1, FREE, None)]


def sizes_on(recorder, card):
    return [num_bytes for _, num_bytes, _ in on_card(recorder.events, card) if num_bytes >= 0]


def test_a_layer_gets_its_inputs_and_its_gradient_goes_back():
    device = SimulatedDevice(find_card("l4"), 2**30, computes=False, num_cards=2)
    tracer, recorder = device.tracer, TraceRecorder()
    with hooks_move_between_cards(tracer), tracer:
        model = torch.nn.Sequential()
        for number, (columns, rows) in enumerate([(4, 8), (8, 2)]):
            with device.on_card(number):
                model.append(torch.nn.Linear(columns, rows, bias=False, device="meta"))
        join_layers(model, {"0": 0, "1": 1})
        inputs = torch.empty(16, 4, device="meta")
        tracer.begin_recording(recorder)
        out = model(inputs)
        assert tracer.card_of(out) == 0  # where the inputs were
        assert sizes_on(recorder, 0)[0] == 16 * 8 * 4
        assert sizes_on(recorder, 1)[:2] == [16 * 8 * 4, 16 * 2 * 4]  # the copy of what the first gave, its own result
        assert sizes_on(recorder, 0)[-1] == 16 * 2 * 4
        del recorder.events[:]
        out.sum().backward()
    assert [tracer.card_of(parameter.grad) for parameter in model.parameters()] == [0, 1]
    # the gradient of the copy arrives where the copy was made from
    assert all(16 * 8 * 4 in sizes_on(recorder, card) for card in (0, 1))


def taken(config, places=None, monkeypatch=None):
    """Return the peaks of phases on each card."""
    if places is not None:
        monkeypatch.setattr(qlora, "places_of", lambda *_: places)
    device = simulate_card(config, find_card("l4"))
    device.replays_layers = False
    strategy, cards = CompiledStrategy(QLoraStrategy(config, device), device), []
    for number in range(device.tracer.num_cards):
        strategy.card_number = number
        strategy.restart(UNLIMITED, False)
        records = []
        recorder = PhaseRecorder(device, records.append)
        with device.active():
            load(strategy, recorder)
            for recorder.step in (1, 2):
                train_step(strategy, recorder, [uniform_batch((1, 64), 2)], 0.0)
            evaluate_batch(strategy, recorder, uniform_batch((2, 64), 2))
        cards.append([(str(r.phase), r.after) for r in records if isinstance(r, PhaseRecord)])
    return strategy, cards


def test_a_model_that_lies_on_one_of_two_cards_takes_there_what_it_takes_alone(monkeypatch):
    _, (alone,) = taken(TINY.with_fields(num_gpus=1, sharding="auto"))
    _, (here, there) = taken(TINY, {"": 0}, monkeypatch)
    assert here == alone
    assert {after.peak_reserved_bytes for _, after in there} == {0}


@pytest.mark.slow
def test_weights_lie_where_device_map_puts_them(monkeypatch):
    strategy, _ = taken(TINY, {"model.embed_tokens": 0, "model.layers.0": 0, "model": 1, "lm_head": 1}, monkeypatch)
    for name, parameter in strategy.inner._base.named_parameters():
        assert strategy.device.tracer.card_of(parameter) == place_of(strategy.inner._places, name)


def test_a_model_without_room_on_the_cards_is_refused():
    config = TINY.with_fields(budget_bytes=60_000)
    with pytest.raises(ConfigError, match="--sharding split: device_map would leave"):
        taken(config)
