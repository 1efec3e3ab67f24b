"""What the live page shows of the logs that a run writes, and the server that hands it out to this machine alone."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import FollowedLog, RunLog
from memory_harness.probes.findings import Finding
from memory_harness.reports.blocks import Banner, Cell, Detail, Findings, Paragraph, Section, Table, Tone
from memory_harness.reports.html.live import live_main, live_page, live_policy
from memory_harness.reports.live import Watcher, eval_line, facts, memory_in_words
from memory_harness.reports.sections import explain, run_sections
from memory_harness.reports.summary import ProbeResult, source_in_words
from memory_harness.reports.text import of_budget
from memory_harness.reports.training import course_section

HOST = "127.0.0.1"
RENDER_SHARE = 0.1
"""most of the time that may go into drawing the page: the run needs the processor too"""


class Seen(NamedTuple):
    """What a log says so far."""

    name: str
    log: RunLog
    findings: list[Finding]


class FollowedFolder:
    """All logs in a folder, which may come one after another: ranks, processes, tries of fixes."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._watchers: dict[Path, Watcher] = {}

    def look(self) -> list[Seen]:
        """Return what each log says, one that still grows first: rank 0 before the others; else that written last."""
        found: list[tuple[bool, float, Seen]] = []
        for path in sorted(self.folder.glob("*.jsonl")):
            if path not in self._watchers:
                self._watchers[path] = Watcher(FollowedLog(path), self._clock)
            view = self._watchers[path].look()
            if view is not None:
                has_ended = view[0].end is not None
                age = -path.stat().st_mtime if has_ended else 0.0
                found.append((has_ended, age, Seen(path.stem, *view)))
        found.sort(key=itemgetter(0, 1))
        return [seen for _, _, seen in found]


def live_sections(seen: Sequence[Seen], *, is_over: bool) -> list[Section]:
    """Return what the page shows: the log that grows in full, and a line for each of the others."""
    if not seen:
        words = "Nothing is in the log yet: the model's libraries are being imported, which takes some seconds."
        return [Section("verdict", body=[Banner("WAITING", words, "warning")])]
    log, findings = seen[0].log, seen[0].findings
    title, tone = _state(log, is_over=is_over)
    facts_of_run = [f"step {log.last_step}{_of_total(log)}", *facts(log), memory_in_words(log)]
    banner = Banner(title, " · ".join(facts_of_run), tone, source_in_words(log))
    details: list[Detail] = [Paragraph(eval_line(record, log)) for record in log.evals[-3:]]
    sections = [Section("verdict", body=[banner], details=details)]
    items = [explain(finding, log) for finding in findings]
    if items:
        sections.append(Section("findings", "Found so far", details=[Findings(items)]))
    sections.append(_processes(seen))
    of_run = run_sections(ProbeResult(log, findings, "pass"))
    over_time = [section for section in of_run if section.name == "time"]
    rest = [section for section in of_run if section.name != "time"]
    return [*sections, *over_time, course_section(log), *rest]


def _state(log: RunLog, *, is_over: bool) -> tuple[str, Tone]:
    if log.fatal_oom is not None and (log.end is not None or is_over):
        return "OUT OF MEMORY", "bad"
    if log.end is None:
        return ("ENDED", "warning") if is_over else (f"RUNNING {log.last_phase or ''}".strip(), "good")
    return ("ENDED", "good") if log.outcome is Outcome.COMPLETED else (str(log.outcome).upper(), "warning")


def _of_total(log: RunLog) -> str:
    return f" of {log.run.total_steps}" if log.run.total_steps else ""


def _processes(seen: Sequence[Seen]) -> Section:
    rows: list[list[str | Cell]] = []
    for name, log, _ in sorted(seen):
        peak = of_budget(log.peak_reserved_bytes, log.run.budget_bytes)
        state = str(log.outcome) if log.end is not None else f"in {log.last_phase or 'its start'}"
        rows.append([name, f"{log.last_step}{_of_total(log)}", peak, state])
    table = Table(("log", "step", "peak reserved", "state"), rows, right=("step",))
    return Section("processes", "Logs of this run", details=[table] if len(rows) > 1 else [])


class LivePage:
    """The page, drawn no more often than the run can bear."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._followed: FollowedFolder | None = None
        self._main = ""
        self._next = 0.0
        self._lock = Lock()
        self.is_over = False

    def follow(self, folder: Path) -> None:
        """Show what is written into this folder from now on."""
        with self._lock:
            self._followed, self._next = FollowedFolder(folder), 0.0

    def main(self) -> str:
        """Return the main part of the page."""
        with self._lock:
            if self._clock() >= self._next or self.is_over:
                begin = self._clock()
                seen = self._followed.look() if self._followed is not None else []
                self._main = live_main(live_sections(seen, is_over=self.is_over))
                end = self._clock()
                self._next = end + (end - begin) / RENDER_SHARE
            return self._main


def open_server(page: LivePage, port: int, token: str) -> ThreadingHTTPServer:
    """Return a server of this machine's loopback that hands out the page to who knows the token. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        """Answers GET for two addresses; `http.server` refuses every other method by itself."""

        server_version, sys_version = "memory-harness", ""

        def do_GET(self) -> None:
            asked = self.path.partition("?")[0]
            is_here = self.headers.get("Host", "") in allowed
            if not is_here or not hmac.compare_digest(asked[: len(token) + 2].encode(), f"/{token}/".encode()):
                self.send_error(404)
            elif asked == f"/{token}/":
                self._answer(live_page(page.main()))
            elif asked == f"/{token}/main":
                self._answer(page.main())
            else:
                self.send_error(404)

        def _answer(self, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            headers = {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Length": str(len(body)),
                "Content-Security-Policy": live_policy(),
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "X-Run-State": "over" if page.is_over else "running",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal is the run's."""

    server = ThreadingHTTPServer((HOST, port), Handler)
    server.daemon_threads = True
    allowed = {f"{name}:{server.server_address[1]}" for name in (HOST, "localhost")}
    return server
