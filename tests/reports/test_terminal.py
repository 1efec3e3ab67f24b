"""The terminal report: what it says, how wide it is, and what reaches a pipe."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from memory_harness.configs.units import GIB, MIB, format_bytes
from memory_harness.harness.log.records import MemoryStats, Outcome, Phase
from memory_harness.probes.findings import Finding
from memory_harness.reports import blocks
from memory_harness.reports.bars import column_chart
from memory_harness.reports.blocks import Section
from memory_harness.reports.levels import Level
from memory_harness.reports.summary import result_of_log
from memory_harness.reports.terminal import PIPED_WIDTH, make_console, print_report, render, svg_text
from tests.builders import AS_PUBLISHED, Failure, as_published_oom, make_log, with_oom
from tests.probes.detectors.test_growth import with_peaks
from tests.reports.results import COMMAND, FITS, fixed_result, planned_result, unfixed_result

RESULTS = {
    "fixed": fixed_result(samples=4000),
    "planned": planned_result(),
    "unfixed": unfixed_result(),
    "fits": result_of_log(FITS),
    "replayed": result_of_log(as_published_oom()),
    "cut off": result_of_log(replace(FITS, end=None, num_unreadable_lines=1)),
    "dies while loading": result_of_log(make_log(failure=Failure(Phase.LOAD, 0, 9 * GIB))),
    "dies at the last step": result_of_log(make_log(AS_PUBLISHED, failure=Failure(Phase.BACKWARD, 32, 3 * GIB))),
    "dies at the first step": result_of_log(make_log(AS_PUBLISHED, failure=Failure(Phase.FORWARD, 1, 3 * GIB))),
    "nothing but a run record": result_of_log(replace(FITS, begins=[], phases=[], steps=[], evals=[], end=None)),
}


def piped(result, encoding="utf-8", **kwargs):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    print_report(result, make_console(file) if not kwargs else Console(file=file, highlight=False, **kwargs))
    file.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("encoding", ["ascii"])
def test_a_pipe_gets_80_columns_and_no_control_codes(name, encoding):
    text = piped(RESULTS[name], encoding)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert "?" not in text or encoding == "utf-8"


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("width", [40, 200])
def test_no_line_is_wider_than_the_console(name, width):
    text = piped(RESULTS[name], width=width)
    assert max(len(line) for line in text.splitlines()) <= min(width, 120)


def test_the_verdict_comes_first_and_the_arithmetic_is_spelled_out():
    text = piped(RESULTS["fixed"])
    assert text.index("FITS WITH 1 FIX") < text.index("Does not fit as configured") < text.index("Why")
    for line in ("8 × 2048 × 128256 × 4 B = 7.83 GiB", "12.32 + 7.83 = 20.15 GiB", "▲ step 1600, EVAL"):
        assert line in text
    assert "simulated on: Tesla T4" in text
    assert "at transformers/loss/loss_utils.py:54" in text


def test_the_arithmetic_stays_readable_in_ascii():
    assert "8 x 2048 x 128256 x 4 B = 7.83 GiB" in piped(RESULTS["fixed"], "ascii")


def test_sizes_far_below_a_gib_are_shown_in_mib():
    small = MemoryStats(peak_allocated_bytes=25 * MIB, peak_reserved_bytes=46 * MIB)
    text = piped(result_of_log(replace(FITS, phases=[replace(phase, after=small) for phase in FITS.phases])))
    assert "peaks in MiB; the budget is 14.40 GiB" in text
    assert re.search(r"FORWARD +25\.00 +46\.00", text)


def test_a_planted_mistake_is_said():
    log = replace(FITS, run=replace(FITS.run, fault="kept-losses"))
    assert "The mistake kept-losses was planted in this run on purpose." in piped(result_of_log(log))
    assert "planted" not in piped(result_of_log(FITS))


def test_the_length_at_which_the_budget_is_reached_is_said():
    log = with_peaks(FITS, (128, 256, 512, 1024), lambda length: length * 16 * MIB)
    assert "of 1 sequence reaches the budget beyond 857 tokens; 25.0%" in piped(result_of_log(log))


def test_a_fix_shows_before_after_and_what_stays_equal():
    text = piped(RESULTS["fixed"])
    assert "✓ eval-batch" in text
    assert "peak 20.15 GiB → 12.36 GiB · verified · same results, bit for bit" in text


def test_a_plan_shows_the_choice_the_alternatives_and_why():
    text = " ".join(piped(RESULTS["planned"]).split())
    assert "Plan for speed, leaving 512.00 MiB of 14.40 GiB free" in text
    assert "eval-batch 13.00 14.00 1.00× yes as configured 20.15 20.49 1.00× no chunked-loss 13.00" in text
    assert "without it the run would not fit: it saves 7 GiB" in text
    assert "losses differ by 3.5e-08 of themselves (allowed: 1e-03): a tiny model on real tensors" in text
    assert "length 2304 tokens" in text
    assert "less than asked for" not in text


def test_a_plan_whose_proof_leaves_less_than_was_asked_for_says_so():
    result = RESULTS["planned"]
    budget, reserved = result.plan.budget_bytes, result.with_fixes.peak_reserved_bytes
    greedy = replace(result, plan=replace(result.plan, headroom_bytes=budget - reserved + MIB))
    left = format_bytes(budget - reserved)
    assert f"leaves {left} free, less than asked for" in " ".join(piped(greedy).split())


def test_a_fix_that_did_not_help_says_so():
    text = piped(RESULTS["unfixed"])
    assert "DOES NOT FIT" in text
    assert "did not help" in text
    assert "the same request fails again" in text


def test_the_same_failure_at_other_sample_counts():
    lines = [" ".join(line.split()) for line in piped(RESULTS["fixed"]).splitlines()]
    for samples, step in ((600, 240), (2000, 800), (4000, 1600)):
        assert f"{samples} step {step} of {2 * step} 50% out of memory" in lines


def test_what_is_simulated_or_made_up_is_said():
    text = piped(RESULTS["fixed"])
    assert "no GPU used" in text
    assert "synthetic: 3200 samples for training, 800 for evaluation" in text
    assert "nothing is computed" in text


def test_a_measured_run_says_measured():
    log = replace(FITS, run=replace(FITS.run, source="cuda"))
    text = piped(result_of_log(log))
    assert "measured on: Tesla T4" in text
    assert "simulated on" not in text


def test_the_next_command_can_be_pasted():
    lines = piped(RESULTS["fixed"]).splitlines()
    start = lines.index("   Train with what fits:") + 1
    end = lines.index("", start)
    pasted = " ".join(line.strip().removesuffix("\\").strip() for line in lines[start:end])
    assert pasted == COMMAND
    assert all(line.endswith(" \\") for line in lines[start : end - 1])


def test_the_answer_is_on_the_first_screen():
    lines = piped(RESULTS["fixed"]).splitlines()
    (fix,) = [number for number, line in enumerate(lines) if "--eval-batch-size 1" in line][:1]
    assert fix < 10
    assert lines[fix].split()[:3] == ["eval-batch", "--eval-batch-size", "1"]


def test_a_phase_that_was_not_reached_is_marked():
    (row,) = [line for line in piped(RESULTS["fixed"]).splitlines() if line.strip().startswith("CHECKPOINT")]
    assert "not reached" in row


def test_a_replayed_log_has_no_fixes():
    file = io.StringIO()
    print_report(result_of_log(as_published_oom()), make_console(file))
    assert "Fixes" not in file.getvalue()
    assert "with 12.32 of 14.40 GiB taken" in " ".join(file.getvalue().replace("│", "").split())


def test_unreadable_lines_are_counted():
    assert "1 line could not be read" in piped(RESULTS["cut off"])
    assert "NOT DECIDED" in piped(RESULTS["cut off"])


def test_no_color_leaves_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    print_report(RESULTS["fixed"], Console(file=file, force_terminal=True, color_system="truecolor", width=80))
    assert "\x1b[3" not in file.getvalue().replace("\x1b[3m", "")


def test_the_picture_holds_the_report():
    picture = svg_text(RESULTS["fixed"])
    assert picture.startswith("<svg ")
    assert "7.83" in picture
    assert set(re.findall(r"https?://[^\s\"']+", picture)) <= {
        "http://www.w3.org/2000/svg",
        "https://www.textualize.io",
    }
    assert svg_text(RESULTS["fixed"]) == picture


def test_outcomes_of_other_counts_that_fit_are_named():
    result = RESULTS["fixed"]
    fits = result.other_counts[0]._replace(outcome=Outcome.COMPLETED, step=480)
    lines = [" ".join(line.split()) for line in piped(replace(result, other_counts=[fits])).splitlines()]
    assert "600 step 480 of 480 100% completed" in lines


def test_what_was_asked_for_is_taken_apart():
    log = with_oom(as_published_oom(), live_bytes={"parameter": 7 * GIB, "logits": 4 * GIB, "scaler": 8})
    text = piped(result_of_log(log))
    section = text[text.index("What was asked for") : text.index("Memory by phase")]
    assert "float32 logits: 8 × 2048 × 128256 × 4 B = 7.83 GiB" in section
    assert "loss_utils.py:54 ForCausalLMLoss" in section
    assert "parameter 7.00 GiB · logits 4.00 GiB\n" in section
    assert "What was asked for" not in piped(RESULTS["fits"])


def test_other_sample_counts_are_summed_up():
    assert "after 50% of the run whatever the number of samples" in " ".join(piped(RESULTS["fixed"]).split())


@pytest.mark.parametrize("columns", ["", "0", "9", "-5", "wide", "9" * 5000])
def test_a_width_in_which_nothing_can_be_shown_is_not_taken(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert make_console(io.StringIO()).width == PIPED_WIDTH


def test_phases_can_be_read_at_40_columns(monkeypatch):
    """Runs are drawn below each other there; beside each other, their numbers would be cut."""
    monkeypatch.setenv("COLUMNS", "40")
    text = piped(RESULTS["fixed"])
    table = text[text.index("Memory by phase") : text.index("█ allocated")]
    assert table.count("OPTIMIZER ") == 2
    assert {"as configured", "with fixes"} <= {line.strip() for line in table.splitlines()}
    assert "…" not in table
    assert all(len(line) <= 40 for line in table.splitlines())


@pytest.mark.parametrize("width", range(44, 130, 6))
def test_the_bars_of_each_run_have_its_name_at_any_width(width):
    text = piped(RESULTS["fixed"], width=width)
    table = text[text.index("Memory by phase") : text.index("█ allocated")]
    assert "as configured" in table
    assert "with fixes" in table


@pytest.mark.parametrize("width", [36, 60])
def test_the_name_of_a_cause_is_whole_however_narrow_the_terminal(width):
    """It is what `--explain` takes."""
    names = ["checkpointing-off-in-generate", "padding-to-max"]
    found = [Finding(name, "warning", "It takes more than it has to", "") for name in names]
    items = [blocks.Explanation(finding, "", "", "", "", "", FITS, "--max-batch-tokens 2048") for finding in found]
    file = io.StringIO()
    Console(file=file, width=width).print(render([Section("also", "Also", body=[blocks.Findings(items)])], width))
    lines = file.getvalue().splitlines()
    assert {*names, "--max-batch-tokens"} <= set(" ".join(lines).split())
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", range(44, 130, 5))
def test_the_sum_beside_a_failing_column_is_whole_at_any_width(width):
    lines = piped(RESULTS["fixed"], width=width).splitlines()
    row = lines[next(i for i, line in enumerate(lines) if line.startswith(" Over the run, as configured")) + 1]
    if "│" not in row:  # the heading takes two lines
        row = lines[lines.index(row) + 1]
    assert "20.15 GiB" in row
    assert row.count("▒") == 1


@pytest.mark.parametrize("width", [36, 40, 60])
def test_a_table_of_numbers_that_is_too_wide_is_shown_in_parts(width):
    names = ("LOAD", "FORWARD", "BACKWARD", "OPTIMIZER", "EVAL")
    table = blocks.Table(("", *names), [["activations", *("11.89" for _ in names)]], right=names)
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(render([Section("numbers", "Numbers", body=[table])], width))
    words = file.getvalue().split()
    assert [word for word in words if word in names] == list(names)
    assert words.count("11.89") == len(names)
    assert words.count("activations") == {36: 3, 40: 2, 60: 1}[width]


def test_a_chart_whose_budget_lies_far_above_has_no_budget_line():
    rows = column_chart([Level(1, 2)], 10, 5, has_line=False)
    assert "╌" not in "".join(row.plain for row, _ in rows)
    assert "╌" in "".join(row.plain for row, _ in column_chart([Level(1, 2)], 10, 5))
