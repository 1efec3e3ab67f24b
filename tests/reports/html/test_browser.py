"""The page in a real browser: no complaint, every chart drawn, in light and dark, wide and narrow."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from memory_harness.reports.html import html_text
from tests.builders import with_oom
from tests.e2e.commands import HANG_SECONDS
from tests.reports.html.test_page import SEGMENTS, hostile
from tests.reports.results import fixed_result

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed")

TEXTS = ("Fits with 1 fix", "8 × 2048 × 128256 × 4 B = 7.83 GiB", "out of memory, EVAL", "simulated on: Tesla T4")
SECTIONS = {"verdict", "why", "phases", "time", "lengths", "map", "fixes", "configuration"}


def browse(page: Path, *flags: str) -> tuple[str, str]:
    """Return what the browser writes and what it complains about."""
    with tempfile.TemporaryDirectory() as profile:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        ended = subprocess.run(
            [BROWSER, "--headless", *sandbox, "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr",
             "--hide-scrollbars", *flags, page.as_uri()],
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
