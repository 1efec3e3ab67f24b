"""The page that a run is watched on: what it shows, whom it answers, how it ends."""

import http.client
import io
import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from memory_harness.harness.log.records import Outcome
from memory_harness.harness.log.runlog import LogWriter
from memory_harness.reports.html.live import live_policy
from memory_harness.reports.live_page import FollowedFolder, LivePage, live_sections, open_server
from tests.builders import AS_PUBLISHED, as_published_oom, make_log
from tests.reports.html.test_page import HOSTILE, Page
from tests.reports.test_live import in_order

CONFIG = AS_PUBLISHED.with_fields(eval_batch_size=1)
TOKEN = "a-token"


def write(path, log, number=200, end=None):
    with LogWriter(path) as writer:
        for record in [*in_order(log)[:number], *([end] if end else [])]:
            writer.write(record)


@pytest.fixture
def served(tmp_path):
    """A page of a folder, and a function that asks its server."""
    page = LivePage(clock=lambda: 0.0)  # drawing takes no time: the page is drawn whenever it is asked for
    server = open_server(page, 0, TOKEN)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(path, method="GET", host=None):
        connection = http.client.HTTPConnection(*server.server_address, timeout=20)
        connection.request(method, path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()

    yield page, ask, tmp_path
    server.shutdown()
    server.server_close()


def test_it_answers_who_knows_the_token_and_only_reads(served):
    page, ask, folder = served
    write(folder / "run.jsonl", make_log(CONFIG))
    page.follow(folder)
    status, headers, text = ask(f"/{TOKEN}/")
    assert status == 200
    assert headers["Content-Security-Policy"] == live_policy()
    assert headers["Cache-Control"] == "no-store"
    assert "connect-src 'self'" in live_policy()
    assert "Running" in Page(text).text
    assert ask(f"/{TOKEN}/main")[0] == 200
    for path in ("/", "/other/", f"/{TOKEN}", f"/{TOKEN}/../etc", f"/{TOKEN}/main/x"):
        assert ask(path)[0] == 404, path
    assert ask(f"/{TOKEN}/", host="evil.example")[0] == 404
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert ask(f"/{TOKEN}/", method)[0] == 501, method


def test_it_grows_with_the_log_and_survives_a_reload(served):
    page, ask, folder = served
    page.follow(folder)
    assert "Nothing is in the log yet" in ask(f"/{TOKEN}/main")[2]
    log = make_log(CONFIG)
    log = replace(log, steps=[replace(step, loss=9.0 - step.step / 10) for step in log.steps])
    write(folder / "run.jsonl", log, 60)
    first = Page(ask(f"/{TOKEN}/")[2]).text
    again = Page(ask(f"/{TOKEN}/")[2]).text
    assert first == again
    assert "of 32" in first
    assert "Over the training" in first
    page.is_over = True
    status, headers, text = ask(f"/{TOKEN}/main")
    assert (status, headers["X-Run-State"]) == (200, "over")
    assert "Ended" in Page(text).text


def test_every_log_of_the_folder_has_a_line(tmp_path):
    for name in ("run", "run.rank1"):
        write(tmp_path / f"{name}.jsonl", make_log(CONFIG), 100)
    sections = live_sections(FollowedFolder(tmp_path).look(), is_over=False)
    (processes,) = [section for section in sections if section.name == "processes"]
    assert [row[0] for row in processes.details[0].rows] == ["run", "run.rank1"]


def test_an_out_of_memory_is_the_verdict(tmp_path):
    log = as_published_oom()
    with LogWriter(tmp_path / "run.jsonl") as writer:
        for record in (log.run, *log.phases, *log.steps, *log.ooms, log.end):
            writer.write(record)
    banner = live_sections(FollowedFolder(tmp_path).look(), is_over=True)[0].body[0]
    assert (banner.title, banner.tone) == ("OUT OF MEMORY", "bad")


def test_what_a_log_says_stays_text(served):
    page, ask, folder = served
    log, evil = make_log(CONFIG), HOSTILE.replace("\ud800", "")
    run = replace(log.run, gpu_name=evil, model=replace(log.run.model, name=evil))
    write(folder / "run.jsonl", replace(log, run=run), 60)
    page.follow(folder)
    shown = Page(ask(f"/{TOKEN}/")[2])
    assert {tag for tag, _ in shown.tags} & {"img", "link"} == set()
    assert len(shown.all("script")) == 1


def test_a_run_that_has_ended_says_so(tmp_path):
    log = make_log(CONFIG)
    write(tmp_path / "run.jsonl", log, 10**6, log.end)
    banner = live_sections(FollowedFolder(tmp_path).look(), is_over=False)[0].body[0]
    assert log.outcome is Outcome.COMPLETED
    assert (banner.title, banner.tone) == ("ENDED", "good")


def test_the_companion_serves_and_ends_with_its_input(monkeypatch, capsys, tmp_path):
    from memory_harness.reports import companion

    write(tmp_path / "run.jsonl", make_log(CONFIG))
    lines = [{"port": 0, "token": TOKEN, "trackers": []}, {"folder": str(tmp_path)}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    monkeypatch.setattr(companion, "SECONDS_AFTER", 0.0)
    assert companion.main() == 0
    assert json.loads(capsys.readouterr().out)["port"] > 0


def test_a_port_that_is_taken_is_told_in_a_line(served, monkeypatch, capsys):
    from memory_harness.reports import companion

    page, _, _ = served
    blocker = open_server(page, 0, TOKEN)
    request = {"port": blocker.server_address[1], "token": TOKEN, "trackers": []}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request) + "\n"))
    assert companion.main() == 2
    assert "give another port" in json.loads(capsys.readouterr().out)["error"]
    blocker.server_close()


@pytest.mark.slow
def test_the_page_of_a_script_that_is_watched(tmp_path):
    """From the address that is printed to the end of the run."""
    script = tmp_path / "script.py"
    script.write_text("import time, torch\nx = torch.nn.Linear(4, 4)\nx(torch.ones(1, 4))\ntime.sleep(8)\n")
    command = [sys.executable, "run_probe.py", "--watch", str(script), "--live", "--output", str(tmp_path / "runs")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        address = next(line for line in process.stderr if line.startswith("live: ")).split()[1]
        _, _, place, token, _ = address.split("/")
        host, _, port = place.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", f"/{token}/")
        assert connection.getresponse().status == 200
        process.communicate(timeout=300)
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(host, int(port), timeout=5).connect()
