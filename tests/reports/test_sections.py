"""The sections of a report: complete, in one order, and shown alike by every renderer."""

import inspect
import io
from dataclasses import replace

import pytest

from memory_harness.reports import sections
from memory_harness.reports.blocks import ONLY_JUST, Paragraph, Section, Table, facts
from memory_harness.reports.html import html_text
from memory_harness.reports.sections import PROBE_SECTIONS, probe_sections
from memory_harness.reports.summary import result_of_log
from memory_harness.reports.terminal import make_console, print_report, print_sections
from tests.builders import as_published_oom
from tests.reports.html.test_page import RESULTS, Page
from tests.reports.results import FITS, planned_result


@pytest.mark.parametrize("name", RESULTS)
def test_the_page_shows_every_section_of_the_terminal_in_the_same_order(name):
    file = io.StringIO()
    print_report(RESULTS[name], make_console(file))
    titles = [section.title for section in probe_sections(RESULTS[name]) if section.body and section.title]
    assert [line for line in file.getvalue().splitlines() if line.strip().startswith(tuple(titles))]
    page, begin = Page(html_text(RESULTS[name])).text.partition("Skip to the verdict")[2], 0
    for title in titles:
        begin = page.index(title, begin)


def test_every_function_is_in_the_order_once():
    yields_sections = [
        function
        for function in vars(sections).values()
        if inspect.isfunction(function) and function.__annotations__.get("return") == "Iterator[Section]"
    ]
    listed = [function.__name__ for function in PROBE_SECTIONS]
    missing = {function.__name__ for function in yields_sections} - {*listed, "probe_sections"}
    assert not missing, f"add to PROBE_SECTIONS in reports/sections.py: {missing}"
    assert len(set(listed)) == len(listed)


def test_a_section_without_anything_to_draw_is_left_out():
    file = io.StringIO()
    first = Section("first", body=[Paragraph("It fits.")])
    print_sections(
        [first, Section("empty", "Empty"), Section("page", "Page", details=[facts({"a": "b"})])], make_console(file)
    )
    assert file.getvalue() == " It fits.\n"


def test_a_row_without_cells_sets_groups_apart():
    file = io.StringIO()
    rows = [["peak", "1"], [], ["time", "22"]]
    first = Section("first", body=[Table(("", "A"), rows, right="A")])
    print_sections([first], make_console(file))
    assert [line.split() for line in file.getvalue().splitlines()] == [["A"], ["peak", "1"], [], ["time", "22"]]


def test_facts_without_a_value_are_left_out():
    assert facts({"card": "T4", "script": ""}).rows == [("card", "T4")]


def test_a_gpu_that_had_its_cache_given_back_fits_only_just():
    budget = FITS.run.budget_bytes
    fits = replace(FITS, run=replace(FITS.run, gpu_peaks=(budget, budget + 1)))
    assert gpu_cells(fits) == ["yes", ONLY_JUST.text]
    failed = as_published_oom()
    failed = replace(failed, run=replace(failed.run, gpu_peaks=(budget, failed.run.budget_bytes + 1)))
    assert gpu_cells(failed)[1] == "no"


def gpu_cells(log):
    (section,) = sections._gpus(result_of_log(log))
    (table, _) = section.body
    return [row[2].text for row in table.rows]


def test_fixes_that_one_run_proved_say_so_and_their_peaks_are_drawn_once():
    (first,) = planned_result().fixes
    fixes = [replace(first, proved_with=("no-upcast",)), replace(first, name="no-upcast", proved_with=("eval-batch",))]
    result = replace(planned_result(), fixes=fixes)
    file = io.StringIO()
    print_report(result, make_console(file))
    assert file.getvalue().count(", all 2 together · verified") == 1
    assert html_text(result).count("before: ") == html_text(planned_result()).count("before: ")
