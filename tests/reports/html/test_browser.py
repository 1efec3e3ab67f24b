"""The page in a real browser: no complaint, every chart drawn, in light and dark, wide and narrow."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from memory_harness.reports.html import html_text
from memory_harness.reports.live_page import LivePage, open_server
from memory_harness.reports.summary import result_of_log
from tests.builders import AS_PUBLISHED, make_log, with_oom
from tests.e2e.commands import HANG_SECONDS
from tests.reports.html.test_page import SEGMENTS, hostile
from tests.reports.results import fixed_result, with_peaks
from tests.reports.test_live_page import write

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed")

TEXTS = ("Fits with 1 fix", "8 × 2048 × 128256 × 4 B = 7.83 GiB", "out of memory, EVAL", "simulated on: Tesla T4")
SECTIONS = {"verdict", "why", "phases", "time", "lengths", "map", "fixes", "configuration"}


def browse(page: Path | str, *flags: str) -> tuple[str, str]:
    """Return what the browser writes and what it complains about."""
    with tempfile.TemporaryDirectory() as profile:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        ended = subprocess.run(
            [BROWSER, "--headless", *sandbox, "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr",
             "--hide-scrollbars", *flags, page if isinstance(page, str) else page.as_uri()],
            capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, "\n".join(line for line in ended.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    result = fixed_result(samples=400)
    result = replace(result, as_configured=with_oom(result.as_configured, segments=SEGMENTS))
    path.write_text(html_text(result), encoding="utf-8")
    return path


def test_it_renders_without_a_complaint(page):
    dom, complaints = browse(page, "--dump-dom")
    assert complaints == ""
    assert set(re.findall(r'<section id="([^"]+)"', dom)) >= SECTIONS
    assert len(re.findall(r'<svg [^>]*role="img"', dom)) >= 7
    assert all(words in dom for words in TEXTS)


def test_what_a_log_says_runs_nothing(tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(html_text(hostile()), encoding="utf-8")
    dom, complaints = browse(path, "--dump-dom")
    assert complaints == ""
    assert dom.count("<script>") == 1  # the page's own
    assert "<img" not in dom


@pytest.mark.parametrize(("scheme", "dark"), [("1", False), ("0", True)], ids=["light", "dark"])
def test_it_follows_the_colours_of_the_system(page, tmp_path, scheme, dark):
    picture = tmp_path / "page.png"
    flags = (f"--screenshot={picture}", "--window-size=400,300", f"--blink-settings=preferredColorScheme={scheme}")
    _, complaints = browse(page, *flags)
    assert complaints == ""
    assert (sum(first_pixel(picture)) < 3 * 128) is dark


def first_pixel(picture: Path) -> tuple[int, int, int]:
    """Return red, green and blue of the pixel in the corner of a PNG of 8 bits a channel."""
    content, data, at = picture.read_bytes(), b"", 8
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            data += content[at + 8 : at + 8 + size]
        at += size + 12
    row = zlib.decompress(data)
    return row[1], row[2], row[3]


TOUCH = """
const said = [];
const say = (name, value) => said.push(name + "=" + value);
const click = (element) => element.dispatchEvent(new MouseEvent("click", { bubbles: true, clientX: 50, clientY: 50 }));
const timeline = document.querySelector("#time svg.timeline");
click(timeline.querySelector(".hover"));
say("tip", document.getElementById("tip").hidden ? "" : document.getElementById("tip").textContent);
const before = timeline.querySelectorAll(".hover").length;
click(document.querySelector("#time .tools button"));
const shown = [...timeline.querySelectorAll(".hover")].filter((rect) => rect.style.display !== "none").length;
say("zoomed", shown > 0 && shown < before);
say("view", timeline.querySelector(".curves").getAttribute("viewBox").split(" ")[2]);
say("steps", document.querySelector("#time .tools span").textContent);
const frame = [...document.querySelectorAll("svg.flame .frame")].at(-1);
click(frame.querySelector("rect"));
say("flame", frame.getAttribute("width"));
const table = document.querySelector("#memory table");
const column = table.tHead.rows[0].cells[1].querySelector("button");
click(column);
say("largest", table.tBodies[0].rows[0].cells[1].textContent);
click(column);
say("smallest", table.tBodies[0].rows[0].cells[1].textContent);
const select = document.querySelector("nav select");
select.value = "BACKWARD";
select.dispatchEvent(new Event("change"));
say("others", document.querySelectorAll("[data-phase=FORWARD]:not(.other-phase)").length);
say("chosen", document.querySelectorAll("[data-phase=BACKWARD]:not(.other-phase)").length > 0);
say("curve", document.querySelector("[data-curve=BACKWARD]").classList.contains("chosen"));
document.title = said.join("|");
"""


@pytest.mark.slow
def test_the_script_answers_taps_zooms_sorts_and_filters(tmp_path):
    """The page's policy would not run the test's own script, and is left out here."""
    text = html_text(result_of_log(with_peaks(make_log(AS_PUBLISHED.with_fields(eval_batch_size=1, samples=400)))))
    path = tmp_path / "page.html"
    policy = re.search(r"<meta http-equiv=[^>]*>", text)[0]
    path.write_text(text.replace(policy, "").replace("</body>", f"<script>{TOUCH}</script></body>"), encoding="utf-8")
    dom, complaints = browse(path, "--dump-dom", "--virtual-time-budget=2000")
    assert complaints == ""
    said = dict(word.partition("=")[::2] for word in re.search(r"<title>([^<]*)</title>", dom)[1].split("|"))
    assert "peak" in said["tip"]
    assert "GiB" in said["tip"]
    assert said["zoomed"] == "true"
    assert float(said["view"]) == 500
    assert said["steps"].startswith("Steps ")
    assert said["flame"] == "100%"
    assert (said["largest"], said["smallest"]) != ("", "")
    assert float(said["largest"]) > 5
    assert float(said["smallest"]) < 1
    assert said["others"] == "0"
    assert (said["chosen"], said["curve"]) == ("true", "true")


@pytest.mark.slow
def test_the_live_page_follows_the_log_and_says_when_the_run_is_over(tmp_path):
    page = LivePage()
    server = open_server(page, 0, "token")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    log = make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    page.follow(tmp_path)
    address = f"http://127.0.0.1:{server.server_address[1]}/token/"
    try:
        write(tmp_path / "run.jsonl", log, 100)
        dom, complaints = browse(address, "--dump-dom", "--virtual-time-budget=3500")
        assert complaints == ""
        assert ">Live</p>" in dom
        assert "Running" in dom
        page.is_over = True
        dom, complaints = browse(address, "--dump-dom", "--virtual-time-budget=3500")
        assert "The run is over." in dom
        assert dom.count('class="tools"') >= 1, "what came anew has its buttons too"
    finally:
        server.shutdown()
        server.server_close()
