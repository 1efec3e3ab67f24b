"""Measurements in processes of their own: one that fails costs no other."""

from __future__ import annotations

import json
import os

from tests.bench.processes import measure_each


def measured(name: str) -> dict[str, object]:
    if name == "bad":
        raise ValueError("no such kernel")
    return {"name": name, "process": os.getpid()}


def test_one_that_fails_is_said_and_the_others_are_written(tmp_path, capsys):
    output = tmp_path / "out.json"
    names = ("first", "bad", "last")
    measure_each(measured, names, output, lambda result: f"{result['name']} is done", num_processes=1, num_levels=2)
    assert capsys.readouterr().out.splitlines() == ["first is done", "bad: ValueError: no such kernel", "last is done"]
    results = json.loads(output.read_text(encoding="utf-8"))
    assert [result["name"] for result in results] == ["first", "last"]
    assert len({os.getpid(), *(result["process"] for result in results)}) == 3
