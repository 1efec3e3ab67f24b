"""The learning rate over a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.schema import RunConfig
from memory_harness.harness.train.loop import learning_rate


def rates(total, **changes):
    config = RunConfig().with_fields(learning_rate=1e-3, **changes)
    return [learning_rate(config, step, total) for step in range(1, total + 1)]


@given(total=st.integers(1, 300), warmup=st.floats(0, 1), schedule=st.sampled_from(["linear", "cosine"]))
def test_it_rises_to_the_peak_and_falls_without_reaching_zero(total, warmup, schedule):
    values = rates(total, warmup_ratio=warmup, schedule=schedule)
    top = max(range(total), key=values.__getitem__)
    assert all(0 < value <= 1e-3 * (1 + 1e-12) for value in values)
    assert values[: top + 1] == sorted(values[: top + 1])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_a_cosine_falls_slowly_at_both_ends():
    linear, cosine = (rates(100, warmup_ratio=0.1, schedule=schedule) for schedule in ("linear", "cosine"))
    assert cosine[10] == linear[10] == pytest.approx(1e-3)
    assert cosine[20] > linear[20]
    assert cosine[55] == pytest.approx(linear[55])
    assert cosine[95] < linear[95]
