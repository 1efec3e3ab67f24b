"""The live page: the page of a report whose main part comes anew while the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from memory_harness.reports.blocks import Banner, Section
from memory_harness.reports.html.drawing import hatches
from memory_harness.reports.html.markup import add, node, to_text
from memory_harness.reports.html.page import main_of, policy_of, script_text, style_text

SECONDS_WITHOUT_SCRIPT = 5


@cache
def _script() -> str:
    return script_text() + Path(__file__).with_name("live.js").read_text(encoding="utf-8")


def live_policy() -> str:
    """Return what a browser may do: run the page's own script, and ask the server that it came from."""
    return policy_of(_script(), "; connect-src 'self'")


def live_main(found: Sequence[Section]) -> str:
    """Return the main part."""
    banner = found[0].body[0]
    assert isinstance(banner, Banner)
    return to_text(main_of(found, banner))


def live_page(main: str) -> str:
    """Return the page around a main part that is text already."""
    reload = node("meta", {"http-equiv": "refresh", "content": str(SECONDS_WITHOUT_SCRIPT)})
    head = node(
        "head",
        {},
        node("meta", {"charset": "utf-8"}),
        node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        node("meta", {"name": "color-scheme", "content": "light dark"}),
        node("title", {}, "Live · QLoRA memory report"),
        node("style", {}, style_text()),
        node("noscript", {}, reload),
    )
    state = node("p", {"class": "chip", "id": "state", "role": "status"}, "Live")
    header = node("header", {}, node("p", {"class": "kicker"}, "QLoRA memory report"), state)
    body = node("body", {}, hatches(), header, node("nav", {"aria-label": "Filter"}), node("main"))
    add(body, [node("script", {}, _script())])
    text = to_text(node("html", {"lang": "en"}, head, body))
    return f"<!doctype html>\n{text.replace('<main></main>', main, 1)}\n"
