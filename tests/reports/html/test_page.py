"""The page: well-formed, whole without a network, complete for every kind of result, and safe whatever a log says."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.records import Phase, SegmentRuns
from memory_harness.harness.log.runlog import LogWriter, RunLog, read_run_log
from memory_harness.probes.findings import OtherCount
from memory_harness.reports.entry import main
from memory_harness.reports.html import html_text
from memory_harness.reports.html.page import policy_of, script_text
from memory_harness.reports.summary import NextStep, ProbeResult, result_of_log
from tests.builders import AS_PUBLISHED, Failure, as_published_oom, make_log, with_oom
from tests.reports.results import COMMAND, FITS, fixed_result, planned_result, small_log, unfixed_result, with_peaks

SEGMENTS = (
    SegmentRuns("large", (9 * GIB,)),
    SegmentRuns("large", (2 * GIB, 512 * MIB, 100 * MIB, 412 * MIB)),
    SegmentRuns("small", (0, MIB, MIB)),
)
NO_CONFIG = replace(FITS, run=replace(FITS.run, config={}, fingerprint="", model=None, environment={}))
EVERY_PHASE = replace(FITS, phases=[replace(FITS.phases[-1], phase=phase) for phase in Phase])
SNAPSHOT = replace(
    FITS,
    run=replace(FITS.run, total_steps=0, steps_per_epoch=0, config={}, fingerprint=""),
    phases=[replace(record, step=0, epoch=0) for record in FITS.phases],
    steps=[],
)
RESULTS = {
    "fixed": fixed_result(samples=400),
    "planned": planned_result(),
    "unfixed": unfixed_result(),
    "fits": result_of_log(FITS),
    "replayed": result_of_log(with_oom(as_published_oom(), segments=SEGMENTS)),
    "cut off": result_of_log(replace(FITS, end=None, num_unreadable_lines=1)),
    "dies while loading": result_of_log(make_log(failure=Failure(Phase.LOAD, 0, 9 * GIB))),
    "dies at the first step": result_of_log(make_log(AS_PUBLISHED, failure=Failure(Phase.FORWARD, 1, 3 * GIB))),
    "dies at the last step": result_of_log(make_log(AS_PUBLISHED, failure=Failure(Phase.BACKWARD, 32, 3 * GIB))),
    "nothing but a run record": result_of_log(replace(FITS, begins=[], phases=[], steps=[], evals=[], end=None)),
    "no configuration": result_of_log(NO_CONFIG),
    "every phase": result_of_log(EVERY_PHASE),
    "a snapshot": result_of_log(SNAPSHOT),
    "contents known": result_of_log(with_peaks()),
    "a small model on a large card": result_of_log(small_log()),
    "many lengths": result_of_log(make_log(AS_PUBLISHED.with_fields(batching="dynamic"), lengths=(90, 700, 1500))),
    "measured beside simulated": replace(
        result_of_log(replace(FITS, run=replace(FITS.run, source="cuda"))), predicted=FITS, whole_run=FITS
    ),
}
VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], "every element that was opened is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


def page(result: ProbeResult) -> Page:
    return Page(html_text(result))


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_is_a_well_formed_page_that_loads_nothing(name):
    text = html_text(RESULTS[name])
    shown = Page(text)
    assert text.startswith("<!doctype html>")
    assert {tag for tag, _ in shown.tags} & {"link", "img", "iframe", "object", "image", "use"} == set()
    assert [found for tag, found in shown.tags if tag == "script"] == [{}]
    assert f"<script>{script_text()}</script>" in text
    links = [value for _, found in shown.tags for key, value in found.items() if key in ("href", "src", "xlink:href")]
    assert all(link and link.startswith("#") for link in links)
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#hatch-request", "#hatch-free"}
    outside = text.replace(script_text(), "")
    assert not re.search(r"https?:|@import|@font-face", outside)
    assert not re.search(r"fetch|import\b|XMLHttp|eval\(|innerHTML|insertAdjacent|document\.write", script_text())


@pytest.mark.parametrize("name", RESULTS)
def test_links_lead_somewhere_and_names_are_unique(name):
    shown = page(RESULTS[name])
    ids = [found["id"] for _, found in shown.tags if "id" in found]
    assert len(ids) == len(set(ids))
    assert {f"#{i}" for i in ids} >= {found["href"] for found in shown.all("a")}
    referred = [i for _, found in shown.tags for i in (found.get("aria-labelledby") or "").split()]
    assert set(referred) <= set(ids)


@pytest.mark.parametrize("name", RESULTS)
def test_a_screen_reader_gets_every_chart_in_words(name):
    shown = page(RESULTS[name])
    charts = shown.all("svg", role="img")
    assert all(len(chart["aria-label"]) > 30 for chart in charts)
    assert all(chart["role"] == "img" for chart in shown.all("svg") if "chart" in (chart.get("class") or ""))
    scrolling = [found for _, found in shown.tags if found.get("tabindex") == "0"]
    assert all(found["aria-label"] and found["role"] == "region" for found in scrolling)


@pytest.mark.parametrize("name", RESULTS)
def test_every_chart_names_its_source(name):
    text = html_text(RESULTS[name])
    captions = re.findall(r"<figcaption>.*?</figcaption>", text, re.DOTALL)
    assert len(captions) == text.count("<figure>")
    word = "measured on" if name == "measured beside simulated" else "simulated on"
    assert all(word in caption for caption in captions)


def test_the_sections_of_the_published_failure():
    shown = page(RESULTS["fixed"])
    sections = [found["id"] for found in shown.all("section")]
    assert sections == [
        "verdict", "next", "why", "request", "phases", "time", "lengths", "fixes", "counts", "also", "environment",
        "configuration", "words",
    ]  # fmt: skip
    for words in ("Fits with 1 fix", "8 × 2048 × 128256 × 4 B = 7.83 GiB", "peak 12.36 of 14.40 GiB"):
        assert words in shown.text
    assert " ".join(COMMAND.split()) in shown.text.replace("\\ ", "")


def test_plan_limits_agreement_and_the_planted_mistake_are_shown():
    planned = planned_result()
    log = planned.as_configured
    shown = page(replace(planned, as_configured=replace(log, run=replace(log.run, fault="kept-losses"))))
    for words in (
        "for speed, leaving 512.00 MiB of 14.40 GiB free",
        "eval-batch13.0014.001.00×yes",
        "without it the run would not fit",
        "losses differ by 3.5e-08 of themselves (allowed: 1e-03)",
        "2304 tokens, at the batch sizes of training and evaluation",
        "The mistake kept-losses was planted in this run on purpose.",
    ):
        assert words in shown.text


def test_the_map_is_there_where_the_log_has_segments():
    shown = page(RESULTS["replayed"])
    assert "in 3 pieces; the largest has 512.00 MiB" in shown.text
    assert "when memory ran out" in shown.text
    assert shown.all("section", id="map")
    assert not page(RESULTS["fixed"]).all("section", id="map")


def test_a_run_that_fits_shows_its_highest_moment():
    log = replace(FITS, end=replace(FITS.end, segments=SEGMENTS))
    shown = page(result_of_log(log))
    assert "As configured, when most was allocated" in shown.text
    assert "asked for:" not in shown.text


def test_a_log_without_a_configuration_says_so():
    for name in ("no configuration", "a snapshot"):
        assert "does not say how the run was configured" in page(RESULTS[name]).text


def test_settings_that_fixes_changed_stand_beside_what_they_were():
    rows = re.findall(r"<tr>.*?</tr>", html_text(RESULTS["fixed"]), re.DOTALL)
    *_, row = [row for row in rows if "--eval-batch-size" in row]  # the first is the fix's own
    assert re.findall(r"<t[hd][^>]*>([^<]*)", row)[:3] == ["--eval-batch-size", "8", "1"]


HOSTILE = """</title></style><script>alert("1")</script>'"><img src=x onerror=alert(1)>&lt;&amp;"""
HOSTILE += "\x00\x1b[31m\ud800\u202e"


def hostile() -> ProbeResult:
    """The published failure as a log could tell it that was made to harm."""
    log = with_oom(
        as_published_oom(),
        where=f"{HOSTILE}.py:1",
        frames=(HOSTILE, f"{HOSTILE}:1 {HOSTILE}"),
        live_bytes={HOSTILE: 7 * GIB},
        segments=(SegmentRuns(HOSTILE, (1,)), *SEGMENTS),
    )
    model = replace(log.run.model, name=HOSTILE, weights=HOSTILE)
    config = log.run.config | {"data": {**log.run.config["data"], "data": HOSTILE, "tokenizer": HOSTILE}}
    run = replace(
        log.run, gpu_name=HOSTILE, corpus=HOSTILE, environment={HOSTILE: HOSTILE}, started_at=HOSTILE, model=model,
        config=config, fingerprint=HOSTILE,
    )  # fmt: skip
    base = fixed_result()
    evil = replace(log, run=run)
    finding = replace(
        base.findings[0], cause=HOSTILE, title=HOSTILE, explanation=HOSTILE, where=f"{HOSTILE}:3",
        evidence={HOSTILE: HOSTILE, f"{HOSTILE}_bytes": 5000},
    )  # fmt: skip
    fix = replace(base.fixes[0], name=HOSTILE, title=HOSTILE, addresses=(HOSTILE,), note=HOSTILE)
    return replace(
        base, as_configured=evil, findings=[finding, replace(finding, severity="warning")], fixes=[fix],
        next_step=NextStep(HOSTILE, HOSTILE), other_counts=[OtherCount(1, 2, 3, HOSTILE)],
    )  # fmt: skip


def test_a_browser_may_run_the_pages_script_and_nothing_else():
    (policy,) = page(RESULTS["fixed"]).all("meta", http_equiv="Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script_text().encode()).digest()).decode()
    assert policy["content"] == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert policy_of("other") != policy["content"]


def test_nothing_that_a_log_says_becomes_markup():
    text = html_text(hostile())
    text.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f]", text)
    shown, clean = Page(text), page(fixed_result())
    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in clean.tags}
    known = {key for _, found in clean.tags for key in found} | {"open"}
    assert {key for _, found in shown.tags for key in found} <= known
    assert shown.text.count('<script>alert("1")</script>') >= 10


@pytest.mark.slow
def test_thousands_of_steps_stay_a_small_file():
    assert len(html_text(fixed_result(samples=1600))) < 200_000


def test_the_same_result_is_the_same_page():
    assert html_text(RESULTS["fixed"]) == html_text(RESULTS["fixed"])


def test_a_log_is_not_changed_by_being_shown():
    log: RunLog = RESULTS["fixed"].as_configured
    before = repr(log)
    html_text(RESULTS["fixed"])
    assert repr(log) == before


def test_the_command_writes_it_beside_the_report_and_again(tmp_path, capsys):
    log, target = tmp_path / "run.jsonl", tmp_path / "new" / "report.html"
    with LogWriter(log) as writer:
        for record in (FITS.run, *FITS.begins, *FITS.phases, *FITS.steps, FITS.end):
            writer.write(record)
    for _ in range(2):
        assert main(["--replay", str(log), "--html", str(target)]) == 0
        assert target.read_text(encoding="utf-8").startswith(html_text(result_of_log(read_run_log(log))))
    assert "FITS" in capsys.readouterr().out
