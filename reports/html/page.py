"""The page: a header, the contents, the sections of a report and a footer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from memory_harness.harness.log.runlog import RunLog
from memory_harness.reports.blocks import Banner, Section
from memory_harness.reports.html.content import block_nodes
from memory_harness.reports.html.drawing import hatches
from memory_harness.reports.html.markup import Node, add, node, to_text
from memory_harness.reports.sections import probe_sections
from memory_harness.reports.summary import ProbeResult, verdict_banner

_BEGINS = "<!doctype html>\n<!-- QLoRA memory report -->"


def html_text(result: ProbeResult) -> str:
    """Return the content of the file."""
    run = result.as_configured.run
    facts = [run.model.name if run.model else "", run.gpu_name, run.started_at.replace("T", " ")[:16]]
    return page_text(probe_sections(result), verdict_banner(result), facts, _how(result.as_configured), run.source)


def page_text(found: Sequence[Section], banner: Banner, facts: Sequence[str], how: str, source: str) -> str:
    """Return a page of sections, of which the first is the verdict.

    Args:
        found: the sections.
        banner: the verdict's.
        facts: what stands in the header, as far as it is known.
        how: where the numbers come from, in words.
        source: the same as a name: `cuda`, `simulated` or `traceback`.
    """
    shown = main_of(found, banner)
    _, *sections = shown
    script = script_text()
    head = node(
        "head",
        {},
        node("meta", {"charset": "utf-8"}),
        node("meta", {"http-equiv": "Content-Security-Policy", "content": policy_of(script)}),
        node("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        node("meta", {"name": "color-scheme", "content": "light dark"}),
        node("title", {}, f"{banner.title.capitalize()} · QLoRA memory report"),
        node("style", {}, style_text()),
    )
    body = node("body", {}, node("a", {"class": "skip", "href": "#verdict"}, "Skip to the verdict"), hatches())
    links = [node("li", {}, node("a", {"href": f"#{s.get('id')}"}, s[0].text or "")) for s in sections]
    listed = node("details", {"class": "contents"}, node("summary", {}, "Contents"), node("ul", {}, *links))
    contents = node("nav", {"aria-label": "Contents"}, listed)
    words = f"{how}. This file needs no network, and can be read without its script."
    footer = node("footer", {}, node("p", {}, words))
    add(body, [_header(facts, how, source), contents, shown, footer])
    add(body, [node("script", {}, script)])
    return f"{_BEGINS}\n{to_text(node('html', {'lang': 'en'}, head, body))}\n"


def main_of(found: Sequence[Section], banner: Banner) -> Node:
    """Return the sections, of which the first is the verdict."""
    verdict, *others = found
    opening = {"id": "verdict", "class": f"verdict {banner.tone}", "aria-labelledby": "verdict-heading"}
    shown = node("section", {**opening, "tabindex": "-1"}, *_content(verdict))
    return node("main", {}, shown, *_sections(others))


def style_text() -> str:
    """Return the look of all pages."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def script_text() -> str:
    """Return the page's one script."""
    return Path(__file__).with_name("page.js").read_text(encoding="utf-8")


def policy_of(script: str, more: str = "") -> str:
    """Return what a browser may do with a page: nothing but run this script, which no other text can stand for."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'{more}"


def _sections(sections: Sequence[Section]) -> Iterator[Node]:
    """Yield the sections that have something to show, those of one name under one heading."""
    for name, of_name in groupby(sections, key=lambda section: section.name):
        found = list(of_name)
        content = list(chain.from_iterable(map(_content, found)))
        if content:
            first = found[0]
            words = first.intro or first.aside
            labelled = {"id": name, "aria-labelledby": f"{name}-heading"}
            heading = node("h2", {"id": f"{name}-heading"}, first.title)
            yield node("section", labelled, heading, node("p", {}, words) if words else None, *content)


def _content(section: Section) -> Iterator[Node]:
    return chain.from_iterable(map(block_nodes, (*section.body, *section.details)))


def _header(facts: Sequence[str], how: str, source: str) -> Node:
    return node(
        "header",
        {},
        node("p", {"class": "kicker"}, "QLoRA memory report"),
        node("p", {"class": "facts"}, " · ".join(filter(None, facts))),
        node("p", {"class": f"chip {source}"}, how),
    )


def _how(log: RunLog) -> str:
    if log.run.source == "cuda":
        return "Measured on a GPU"
    return "Simulated: no GPU used, nothing measured"
