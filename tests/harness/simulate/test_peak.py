"""What lived at a simulated card's peak."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import REQUEST, ROUNDING, Phase
from memory_harness.harness.simulate.memoized import MemoizedMemory
from memory_harness.harness.simulate.memory import SimulatedMemory
from memory_harness.harness.simulate.peak import PeakWatch, replayed_parts, replayed_peak
from memory_harness.harness.simulate.trace import FREE, RENAME

MIB = 2**20


def code_of(path, name="forward"):
    return compile("x = 1", path, "exec").replace(co_name=name)


MODEL = "/env/lib/site-packages/transformers/models/llama/modeling_llama.py"
KERNEL = "/env/lib/site-packages/bitsandbytes/autograd/_functions.py"
SITE = ((code_of(KERNEL), 12), (code_of(MODEL), 300))


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5)), max_size=60))
def test_it_is_what_a_replay_up_to_the_peak_finds(choices):
    """A key that lives is freed, one that does not is allocated."""
    watch = PeakWatch(SimulatedMemory(None), "activation")
    live: dict[int, int] = {}
    highest, at_peak = 0, {}
    for key, size in choices:
        if key in live:
            watch.free(key)
            del live[key]
        else:
            watch.alloc(key, size * 512, ((code_of(f"/b/a/env/{key}.py"), key),))
            live[key] = size * 512
            if sum(live.values()) > highest:
                highest, at_peak = sum(live.values()), dict(live)
    parts = [part for part in watch.parts(of_failure=False) if part.category != ROUNDING]
    assert {part.site.partition(" ")[0] for part in parts} == {f"a/env/{key}.py:{key}" for key in at_peak}
    assert sum(part.num_bytes for part in parts) == highest


def test_the_parts_add_up_to_the_peak_with_what_blocks_are_larger():
    memory = SimulatedMemory(None)
    watch = PeakWatch(memory, "activation")
    for key, size in ((1, 3 * MIB), (2, 700), (3, 19 * MIB + 512)):
        watch.alloc(key, size, SITE)
    parts = watch.parts(of_failure=False)
    assert sum(part.num_bytes for part in parts) == memory.stats().peak_allocated_bytes
    assert {part.category for part in parts} == {"activation", ROUNDING}


def test_a_part_names_the_line_and_the_model_that_led_there():
    watch = PeakWatch(SimulatedMemory(None), "activation")
    watch.alloc(1, 2 * MIB, SITE)
    watch.alloc(2, 2 * MIB, SITE)
    (part,) = watch.parts(of_failure=False)
    assert (part.site, part.num_bytes, part.num_tensors) == (
        "bitsandbytes/autograd/_functions.py:12 forward",
        4 * MIB,
        2,
    )
    assert part.caller == "transformers/models/llama/modeling_llama.py:300 forward"


def test_layers_of_a_model_count_together_under_the_names_of_their_tensors():
    watch = PeakWatch(SimulatedMemory(None), "activation")
    for layer in range(3):
        watch.alloc(layer, MIB, SITE)
        watch.rename(layer, ("parameter", f"model.layers.{layer}.mlp.fc1.weight"))
    (part,) = watch.parts(of_failure=False)
    assert (part.category, part.site, part.num_tensors) == ("parameter", "model.layers.*.mlp.fc1.weight", 3)


def test_what_failed_stands_beside_what_lived_then():
    watch = PeakWatch(SimulatedMemory(64 * MIB), "activation")
    watch.alloc(1, 40 * MIB, ())
    watch.free(1)
    watch.alloc(2, 30 * MIB, ())
    with pytest.raises(DeviceOutOfMemory):
        watch.alloc(3, 50 * MIB, SITE)
    watch.free(2)
    sizes = {part.category: part.num_bytes for part in watch.parts(of_failure=True)}
    assert sizes == {REQUEST: 50 * MIB, "activation": 30 * MIB}
    (part,) = watch.parts(of_failure=False)
    assert part.num_bytes == 40 * MIB


def replayed(phases, budget_bytes=None):
    memoized = MemoizedMemory(SimulatedMemory(budget_bytes))
    memoized.begin("load", [[(0, 8 * MIB, SITE), (0, RENAME, ("parameter", "weight"))]])
    memoized.next_phase()
    for number, phase in enumerate(phases):
        memoized.begin(number, [phase])
        memoized.next_phase()
    return memoized


def test_replayed_phases_are_asked_at_the_highest_of_them():
    high = [(1, 6 * MIB, SITE), (1, FREE, None), (2, 2 * MIB, SITE), (2, FREE, None)]
    low = [(1, 2 * MIB, SITE), (1, FREE, None)]
    memoized = replayed([low, high, low])
    sizes = {part.category: part.num_bytes for part in replayed_parts(memoized, of_failure=False)}
    assert sizes == {"parameter": 8 * MIB, "activation": 6 * MIB}


def test_a_replayed_phase_that_fails_is_asked_for_what_did_not_fit():
    memoized = replayed([[(1, 20 * MIB, SITE), (1, FREE, None)]], budget_bytes=40 * MIB)
    memoized.begin("failing", [[(1, 10 * MIB, SITE), (2, 50 * MIB, SITE)]])
    with pytest.raises(DeviceOutOfMemory):
        memoized.next_phase()
    sizes = {part.category: part.num_bytes for part in replayed_parts(memoized, of_failure=True)}
    assert sizes == {"parameter": 8 * MIB, "activation": 10 * MIB, REQUEST: 50 * MIB}


def test_each_replayed_phase_is_told_by_kind_layer_and_calls():
    """The highest of all chains of a name, and of a chain the phase that is asked for."""
    name = ("gradient", "model.layers.2.mlp.up_proj.weight")
    low = [[(1, 2 * MIB, SITE), (1, FREE, None)], [(2, MIB, SITE), (2, FREE, None)]]
    high = [[(1, 6 * MIB, SITE)], [(2, 3 * MIB, SITE), (1, FREE, None), (2, RENAME, name), (3, 512, SITE)]]
    memoized = MemoizedMemory(SimulatedMemory(None))
    for size, chain in enumerate((low, high, low)):
        memoized.begin((("train", True), (size, 1)), chain)
        memoized.next_phase()
        memoized.next_phase()
    peaks = {place: num_bytes for place, (num_bytes, _) in memoized.phase_peaks.items()}
    assert peaks == {("train", 1): 6 * MIB, ("train", 2): 9 * MIB}
    _, chain = memoized.phase_peaks["train", 2]
    record = replayed_peak(memoized, chain, Phase.BACKWARD, 3, {6 * MIB: "logits"})
    assert record.kinds == {"gradients": 3 * MIB, "logits": 6 * MIB}
    assert (record.step, record.allocated_bytes) == (3, 9 * MIB)
    assert record.layers == {"layers.2": {"gradients": 3 * MIB}}
    made = "transformers/models/llama/modeling_llama.py:300 forward;bitsandbytes/autograd/_functions.py:12 forward"
    assert record.stacks == {f"logits;{made}": 6 * MIB, "gradients;model.layers.*.mlp.up_proj.weight": 3 * MIB}


def test_a_replayed_phase_that_failed_is_told_with_what_did_not_fit():
    memoized = replayed([], budget_bytes=40 * MIB)
    memoized.begin("failing", [[(1, 10 * MIB, SITE), (2, 50 * MIB, SITE)]])
    with pytest.raises(DeviceOutOfMemory):
        memoized.next_phase()
    _, chain = memoized.phase_peaks["failing", 1]
    record = replayed_peak(memoized, chain, Phase.EVAL, 1, {})
    assert record.kinds == {"weights": 8 * MIB, "activations": 10 * MIB, "did not fit": 50 * MIB}
