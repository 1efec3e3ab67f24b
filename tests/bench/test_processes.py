"""Measurements in processes of their own: one that fails costs no other."""

from __future__ import annotations

import json

from tests.bench.processes import measure_each


def test_one_that_fails_is_said_and_the_others_are_written(tmp_path, capsys):
    output = tmp_path / "out.json"
    names = ('{"name": "first"}', "bad", '{"name": "last"}')
    measure_each(json.loads, names, output, lambda result: f"{result['name']} is done", num_processes=2, num_levels=2)
    first, bad, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("first is done", "last is done")
    assert bad.startswith("bad: JSONDecodeError: ")
    assert json.loads(output.read_text(encoding="utf-8")) == [{"name": "first"}, {"name": "last"}]
