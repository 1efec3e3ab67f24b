"""What an upgrade changed, as people and programs see it, and the exit code."""

import io
import json
from dataclasses import replace

import pytest

from memory_harness.configs.units import GIB, MIB, parse_increase
from memory_harness.harness.log.records import PeakPart, Phase
from memory_harness.probes.compare import compare
from memory_harness.reports.comparison import Names
from memory_harness.reports.summary import NextStep
from memory_harness.reports.terminal import make_console
from memory_harness.reports.upgrade import Upgrade, print_upgrade, upgrade_exit_code, upgrade_json
from tests.builders import AS_PUBLISHED, as_published_oom, make_log
from tests.probes.test_compare import with_more
from tests.reports import schema

NAMES = Names("transformers 5.17", "transformers 5.23.0 (installed)")
MODEL = "transformers/models/llama/modeling_llama.py"
STEP = NextStep("See B in full:", "run-probe --replay b.jsonl")
PARTS = [
    PeakPart("activation", f"{MODEL}:123 forward", "x = self.up_proj(x)", "", 3 * GIB, 2),
    PeakPart("parameter", "model.layers.*.mlp.up_proj.weight", "", "", 5 * GIB, 32),
]
GROWN = [replace(PARTS[0], site=f"{MODEL}:131 forward", num_bytes=4 * GIB), PARTS[1]]
LOG = replace(make_log(), peak_parts=PARTS)
LARGER = replace(with_more(make_log(), Phase.EVAL, GIB, reserved=GIB), peak_parts=GROWN)


def upgrade(before=LOG, after=LARGER, allowed=None):
    return Upgrade(compare(before, after), None if allowed is None else parse_increase(allowed))


def printed(shown):
    file = io.StringIO()
    print_upgrade(shown, NAMES, STEP, make_console(file))
    assert max(map(len, file.getvalue().splitlines())) <= 80
    return " ".join(file.getvalue().split())


def test_equal_runs_are_said_to_be_equal():
    text = printed(upgrade(LOG, LOG))
    assert "Nothing changed: all peaks are equal to the byte." in text
    assert "None: every line that was alive at the peak takes the same in both." in text
    assert upgrade_exit_code(upgrade(LOG, LOG, "0%")) == 0


def test_the_lines_that_grew_are_shown_with_both_numbers():
    text = printed(upgrade())
    assert "WORSE" in text
    assert "up_proj(x)" in text
    assert "in A line 123" in text
    assert "+1.00 GiB" in text
    assert "up_proj.weight" not in text.partition("Lines that changed it")[2], "what is the same is no line"
    assert all(name in text for name in NAMES)


def test_the_json_says_the_same():
    content = json.loads(upgrade_json(upgrade(allowed="1 MiB"), NAMES, STEP))
    schema.check(content, "comparison")
    assert content["verdict"] == "worse"
    assert content["exceeded"]
    (line,) = content["peak_by_line"]
    assert (line["site_before"], line["difference_bytes"]) == (PARTS[0].site, GIB)
    assert [part["difference_bytes"] for part in content["peak_by_category"]] == [GIB, 0]


@pytest.mark.parametrize(
    ("before", "after", "allowed", "code"),
    [
        (LOG, LARGER, None, 1),
        (LARGER, LOG, None, 0),
        (LARGER, LOG, "0%", 0),
        (LOG, LARGER, "50%", 0),
        (LOG, LARGER, "1%", 1),
        (LOG, LARGER, "2 GiB", 0),
        (LOG, LARGER, "1 GiB", 0),
        (LOG, LARGER, "1023 MiB", 1),
    ],
)
def test_the_exit_code_follows_what_is_allowed(before, after, allowed, code):
    assert upgrade_exit_code(upgrade(before, after, allowed)) == code


def test_running_out_of_memory_is_worse_whatever_is_allowed():
    fits = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    assert upgrade_exit_code(upgrade(fits, as_published_oom(), "100 GiB")) == 1
    assert upgrade_exit_code(upgrade(as_published_oom(), fits)) == 0


def test_a_phase_that_takes_more_below_the_runs_peak_is_no_worse_run():
    more = replace(with_more(make_log(), Phase.DATA, 64 * MIB), peak_parts=PARTS)
    shown = upgrade(LOG, more)
    assert shown.comparison.verdict == "worse"
    assert (shown.verdict, upgrade_exit_code(shown)) == ("same", 0)
    assert "Nothing changed: " not in printed(shown)


def test_what_was_not_recorded_is_not_made_up():
    assert "What lived at the peaks was not recorded." in printed(upgrade(make_log(), make_log()))
