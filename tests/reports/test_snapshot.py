"""Memory snapshots in the reports, and two of them side by side."""

from __future__ import annotations

import json

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.snapshot import write_snapshot
from memory_harness.reports.entry import main
from tests.reports import schema


def block(addr, size, line, state="active_allocated"):
    frames = [{"filename": "/home/user/train.py", "line": line, "name": "step"}]
    return {"address": addr, "size": size, "state": state, "frames": frames}


def saved(folder, name, blocks, events=()):
    in_use = sum(one["size"] for one in blocks if one["state"] != "inactive")
    total = sum(one["size"] for one in blocks)
    segment = {"device": 0, "address": 0, "total_size": total, "allocated_size": in_use, "blocks": blocks}
    path = folder / name
    write_snapshot({"segments": [segment], "device_traces": [list(events)]}, path)
    return str(path)


@pytest.fixture
def leaky(tmp_path):
    blocks = [block(0, GIB, 1), *(block(n, 2 * MIB, 42) for n in range(1, 51)), block(99, 300 * MIB, 1, "inactive")]
    events = []
    for n in range(1, 51):
        place = {"stream": 0, "frames": block(0, 0, 42)["frames"]}
        events.append({"action": "alloc", "addr": n, "size": 2 * MIB, **place})
    return saved(tmp_path, "leaky.pickle", blocks, events)


def test_without_a_named_card_no_budget_is_made_up(leaky, tmp_path, capsys):
    files = ["--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]
    assert main(["--replay", leaky, *files]) == 3  # it ended neither well nor for want of memory
    text = " ".join(capsys.readouterr().out.split())
    assert "of a budget that is not known" in text
    assert "│ budget" not in text
    assert "home/user/train.py:42 step" in text
    assert "What stays grew by" in text
    assert "300.00 MiB of it unused in 1 piece" in text
    content = json.loads((tmp_path / "r.json").read_text("utf-8"))["snapshot"]
    assert content["by_line"][0]["bytes"] == GIB
    assert content["peak_allocated_bytes"] == GIB + 100 * MIB
    assert "The line is the budget" not in (tmp_path / "r.html").read_text("utf-8")


def test_a_named_budget_is_taken(leaky, capsys):
    assert main(["--replay", leaky, "--budget", "2 GiB"]) == 3
    assert "1.10 of 2.00 GiB" in " ".join(capsys.readouterr().out.split())


def test_two_snapshots_say_what_grew_by_line(leaky, tmp_path, capsys):
    early = saved(tmp_path, "early.pickle", [block(0, GIB, 1), block(1, 2 * MIB, 42)])
    assert main(["--compare", early, leaky, "--json", str(tmp_path / "c.json")]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "+98.00 MiB" in text
    content = json.loads((tmp_path / "c.json").read_text("utf-8"))
    schema.check(content, "snapshots")
    assert content["next"]["command"].endswith(f"--replay {leaky}")
    (more,) = content["more"]
    assert (more["maker"], more["bytes"], more["blocks"]) == ("home/user/train.py:42 step", 98 * MIB, 49)
    assert main(["--compare", leaky, early]) == 0
    assert main(["--compare", early, early]) == 0
    assert "NO CHANGE" in capsys.readouterr().out


def test_a_snapshot_and_a_log_do_not_compare(leaky, tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert main(["--compare", leaky, str(tmp_path / "log.jsonl")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_failed_allocation_in_joined_outputs_names_their_cause(tmp_path, capsys):
    frames = [
        {
            "filename": "/v/site-packages/transformers/trainer_pt_utils.py",
            "line": 88,
            "name": "torch_pad_and_concatenate",
        },
        {"filename": "/v/site-packages/transformers/trainer.py", "line": 3254, "name": "evaluation_loop"},
        {"filename": "/home/user/train.py", "line": 5, "name": "<module>"},
    ]
    oom = {"action": "oom", "size": 4 * GIB, "device_free": GIB, "stream": 0, "frames": frames}
    path = saved(tmp_path, "oom.pickle", [block(0, GIB, 1)], [oom])
    assert main(["--replay", path]) == 1
    assert "logits-hoarded (likely)" in capsys.readouterr().out
