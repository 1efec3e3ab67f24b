"""Predicted seconds: of operators by arithmetic and traffic, of training by its batches; more work takes longer."""

import pytest
import torch

from memory_harness.configs.cards import Speeds, find_card, load_cards
from memory_harness.configs.preset import load_preset
from memory_harness.configs.schema import RunConfig
from memory_harness.harness.data.batching import Example, packed_batch
from memory_harness.harness.simulate.lowering import operator_lowerings
from memory_harness.harness.simulate.trace import DiscardingSink
from memory_harness.harness.simulate.tracer import Tracer
from memory_harness.harness.simulate.work import WorkMeter
from memory_harness.probes.plan.predict import RecordedModel, uniform_batch
from memory_harness.probes.plan.seconds import batch_seconds, epoch_seconds

SPEEDS = Speeds(half_flops=1e12, float32_flops=1e11, bytes_per_second=1e9, operator_seconds=1e-6)
TINY = load_preset("smoke_cpu").with_fields(tensors="fake", dtype="float16", generate_prompts=0, gpu="t4")


def metered(run):
    """Return what a meter has counted of a function of two matrices (1000, 1000) in 16 bits."""
    tracer = Tracer(DiscardingSink(lambda: None), operator_lowerings(find_card("t4")), torch.device("meta"))
    left, right = (torch.empty(1000, 1000, dtype=torch.float16, device="meta") for _ in range(2))
    tracer.meter = WorkMeter(SPEEDS)
    with tracer:
        run(tracer, left, right)
    return tracer.meter


def test_a_product_takes_as_long_as_its_arithmetic_or_its_traffic():
    flops, num_bytes = 2 * 1000**3, 3 * 2 * 1000**2
    traffic = num_bytes / SPEEDS.bytes_per_second
    assert metered(lambda _, left, right: left @ right).device_seconds == max(traffic, flops / SPEEDS.half_flops)
    wide = metered(lambda _, left, right: torch.mm(left.float(), right.float()))
    assert wide.device_seconds == pytest.approx(2 * traffic + flops / SPEEDS.float32_flops, rel=0.01)
    added = metered(lambda _, left, right: left.addmm_(left, right))
    assert added.device_seconds >= traffic


def test_what_runs_no_kernel_takes_the_host_alone():
    meter = metered(lambda _, left, right: left.view(-1).detach())
    assert meter.device_seconds == 0
    assert meter.host_seconds == 2 * SPEEDS.operator_seconds


def test_a_fused_kernel_moves_its_results_alone():
    def fused(tracer, left, right):
        with tracer.paused():
            left.copy_(left.float().mul(right).half())

    assert metered(fused).device_seconds == 2 * 2 * 1000**2 / SPEEDS.bytes_per_second


def test_causal_attention_computes_half_the_scores():
    meter = WorkMeter(SPEEDS)
    meter.attention(torch.empty(1, 8, 100, 64, dtype=torch.float16), 8 * 100 * 100 / 2, num_products=2)
    assert meter.device_seconds == 2 * 2 * 64 * 8 * 100 * 50 / SPEEDS.half_flops


@pytest.fixture(scope="module")
def recorded():
    return RecordedModel(TINY)


def test_longer_batches_and_slower_cards_take_longer(recorded):
    def seconds(length, card):
        return batch_seconds(recorded, TINY, uniform_batch((1, length), 0), find_card(card).speeds)

    slow_host = Speeds(1e15, 1e15, 1e15, 1.0)
    assert seconds(64, "t4") <= seconds(128, "t4")
    assert batch_seconds(recorded, TINY, uniform_batch((1, 64), 0), slow_host) > 1
    assert batch_seconds(recorded, TINY, uniform_batch((1, 64), 0), SPEEDS) > 0


def test_the_training_of_an_epoch_takes_longer_with_more_samples():
    assert 0 < epoch_seconds(TINY.with_fields(samples=20), SPEEDS) < epoch_seconds(TINY.with_fields(samples=40), SPEEDS)


def test_layers_that_are_replayed_take_as_long_as_those_that_run():
    """Also where predictions have recorded the layers before, without their work."""
    config = RunConfig().with_fields(model="llama-3.2-1b", max_length=256, samples=8)
    batch, recorded = uniform_batch((1, 256), 0), RecordedModel(config)
    recorded.step(config, [batch])
    found = []
    for replays_layers in (False, True):
        recorded.device.replays_layers = replays_layers
        found.append([batch_seconds(recorded, config, batch, SPEEDS) for _ in range(3)])
    (_, *run), (_, *replayed) = found  # the first one may find something that it has to make
    assert replayed == pytest.approx(run, rel=1e-9)


def test_samples_of_a_packed_sequence_take_less_than_one_as_long():
    """By PyTorch's flash kernel, which keeps something more of such a sequence."""
    packed = TINY.with_fields(batching="packed", gpu="h200", max_batch_tokens=512, max_length=512)
    recorded = RecordedModel(packed)
    compute_alone = Speeds(1e9, 1e9, 1e30, 0.0)
    several, one = (
        batch_seconds(recorded, packed, packed_batch([Example(512 // number, 1)] * number, 512), compute_alone)
        for number in (8, 1)
    )
    assert 0 < several < one


def test_what_is_replayed_as_a_graph_does_not_wait_for_the_host():
    graphs = TINY.with_fields(fast_path="torch", loss="chunked", recompute="none", cuda_graphs="auto")
    slow_host = Speeds(1e12, 1e12, 1e12, 1.0)
    batch = uniform_batch((1, 64), 0)
    fast = RecordedModel(graphs)
    assert batch_seconds(fast, graphs, batch, slow_host) < 1 < batch_seconds(fast, TINY, batch, slow_host)


def test_every_card_has_speeds_and_the_newer_are_faster():
    cards = load_cards()
    assert all(card.speeds.half_flops >= card.speeds.float32_flops > 0 for card in cards.values())
    assert cards["t4"].speeds.half_flops < cards["a100-40gb"].speeds.half_flops < cards["h200"].speeds.half_flops
    assert cards["gb10"].peak_speeds is None
    assert cards["gb10"].speeds.bytes_per_second > cards["t4"].speeds.bytes_per_second
