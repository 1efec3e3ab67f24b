"""Resident memory that rises with each evaluation batch by the size of its logits."""

from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import HOST, ForwardFacts, Phase, SurvivorRecord
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, make_log

LENGTH, NUM_BATCHES = 300, 12


def evaluated(script, source):
    """Return the log of a run whose evaluation adds the logits of each batch to resident memory."""
    log = make_log(AS_PUBLISHED.with_fields(samples=60, max_length=LENGTH), lengths=(LENGTH,))
    before = [record for record in log.phases if record.phase is not Phase.EVAL]
    last = next(record for record in log.phases if record.phase is Phase.EVAL)
    tokens = last.batch.padded_tokens
    logits = tokens * 128256 * 2
    forward = ForwardFacts(False, 0, 0, logits_bytes=logits, output_bytes=logits)
    batches = [
        replace(last, micro_step=number, host_rss_bytes=GIB + logits * number, forward=forward)
        for number in range(NUM_BATCHES)
    ]
    return replace(log, phases=[*before, *batches], run=replace(log.run, script=script, source=source))


def causes(log):
    return [finding.cause for finding in detect(log) if finding.cause == "logits-hoarded-host"]


@pytest.mark.parametrize("source", ["simulated", "measured"])
def test_beside_a_card_it_is_told(source):
    script = "" if source == "simulated" else "train.py"
    assert causes(evaluated(script, source)) == ["logits-hoarded-host"]


def test_where_the_card_lies_in_resident_memory_too_it_is_told_with_what_holds_it():
    log = evaluated("train.py", "simulated")
    assert causes(log) == []
    held = SurvivorRecord(1, HOST, "train.py:9 evaluate", "global `kept` of __main__: list of 9 (train.py:9)", 2**20, 1)
    log.survivors.append(replace(held, unit=HOST))
    assert causes(log) == ["logits-hoarded-host"]


def test_two_passes_on_two_levels_are_not_growth():
    """As where an evaluation is made again with the adapter off."""
    log = evaluated("", "simulated")
    batches = [record for record in log.phases if record.phase is Phase.EVAL]
    levels = [replace(it, host_rss_bytes=GIB + (it.micro_step >= NUM_BATCHES // 2) * GIB) for it in batches]
    before = [record for record in log.phases if record.phase is not Phase.EVAL]
    assert causes(replace(log, phases=[*before, *levels])) == []


@pytest.mark.parametrize(("num", "expected"), [(NUM_BATCHES, ["logits-hoarded-host"]), (2, [])])
def test_a_list_of_as_many_logits_as_the_process_has_grown_by_tells_though_it_began_to_grow_late(num, expected):
    """The first logits lie where training has freed memory; what has grown by as much for a few tensors is another."""
    log = evaluated("train.py", "simulated")
    batches = [record for record in log.phases if record.phase is Phase.EVAL]
    logits = batches[0].forward.logits_bytes
    late = [replace(it, host_rss_bytes=GIB + logits * (it.micro_step >= NUM_BATCHES - 2)) for it in batches]
    holder = f"local `kept` of evaluate(): list of {num} (train.py:9)"
    log.survivors.append(SurvivorRecord(1, Phase.EVAL, "", holder, NUM_BATCHES * logits, num, unit=HOST))
    before = [record for record in log.phases if record.phase is not Phase.EVAL]
    assert causes(replace(log, phases=[*before, *late])) == expected
