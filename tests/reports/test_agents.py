import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("mcp")
from mcp import Client

from memory_harness.reports.agents import server


def called(server, tool, **arguments):
    """What a tool answers an agent: whether it is an error, and the text or the answer's fields."""

    async def call():
        async with Client(server) as client:
            result = await client.call_tool(tool, arguments)
            if result.is_error:
                return result.content[0].text
            return result.structured_content

    return asyncio.run(call())


@pytest.fixture
def tools(tmp_path):
    return server(tmp_path / "out")


def test_tools_say_what_they_do(tools):
    async def listed():
        async with Client(tools) as client:
            return (await client.list_tools()).tools

    found = {tool.name: tool for tool in asyncio.run(listed())}
    assert set(found) == {"help", "probe", "estimate", "replay", "compare", "traceback", "explain", "dry_run"}
    assert all(tool.description for tool in found.values())
    assert [name for name, tool in found.items() if not tool.annotations.read_only_hint] == ["dry_run"]


def test_a_cause_is_explained(tools):
    answer = called(tools, "explain", cause="eval-batch-logits")
    assert answer["exit_code"] == 0
    assert "eval-batch-logits" in answer["report"]
    assert answer["json_file"] is None


@pytest.mark.slow  # a process more
def test_a_log_is_reported_in_the_folder_for_output(tools, tmp_path, monkeypatch):
    log = tmp_path / "own.jsonl"
    log.write_text("", encoding="utf-8")
    assert "own.jsonl" in called(tools, "replay", path=str(log))
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == ["own.jsonl"]


@pytest.mark.slow  # a process more
def test_a_traceback_is_explained_as_json_too(tools):
    text = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 14.74 GiB in total"
    answer = called(tools, "traceback", text=text)
    assert json.loads(Path(answer["json_file"]).read_text(encoding="utf-8"))["causes"] is not None
    assert "2.00 GiB" in answer["report"]


@pytest.mark.parametrize(
    "flags", [["--train"], ["--json", "r.json"], ["--json=r.json"], ["--output", "o"], ["--help"], ["-h"], ["--", "x"]]
)
def test_what_writes_fetches_or_trains_is_refused(tools, tmp_path, flags):
    assert f"{flags[0].partition('=')[0]}: no tool takes this flag" in called(tools, "estimate", flags=flags)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_the_programs_own_line(tools):
    assert "--model nobodys" in called(tools, "probe", flags=["--model", "nobodys"])
