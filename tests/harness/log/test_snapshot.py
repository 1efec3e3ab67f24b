"""Memory snapshots: written so that PyTorch's own tools read them, read so that a pickle can do no harm."""

import collections
import json
import pickle
import pickletools
import random
import resource
import subprocess
import sys

import pytest
from torch.cuda import _memory_viz

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.errors import DeviceOutOfMemory, LogError
from memory_harness.harness.log.records import Outcome, Phase, record_from_dict, record_to_dict
from memory_harness.harness.log.snapshot import (
    is_snapshot,
    load_snapshot,
    log_of_snapshot,
    read_snapshot,
    write_snapshot,
)
from memory_harness.harness.simulate.history import MAX_ENTRIES, MemoryHistory, history_of
from memory_harness.harness.simulate.memoized import NUM_RECENT, MemoizedMemory
from memory_harness.harness.simulate.memory import SimulatedMemory
from memory_harness.harness.simulate.trace import FREE
from memory_harness.probes.detectors import detect
from memory_harness.reports.snapshot import contents_sections
from memory_harness.reports.summary import result_of_log, verdict_sentence
from tests.builders import as_published_oom

BUDGET = 400 * MIB

VIEWER_OPCODES = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT", "BINUNICODE", "DICT",
    "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "FRAME", "LIST", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK",
    "MEMOIZE", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "SETITEM", "SETITEMS", "SHORT_BINUNICODE", "STOP", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
"""What the viewer's own unpickler knows. Source: torch/utils/viz/MemoryViz.js."""


def made_in(name):
    return ((compile(f"def {name}(): pass", f"/home/user/{name}.py", "exec").co_consts[0], 1),)


def busy_history(num_events=3000, *, expandable_segments=False, max_entries=MAX_ENTRIES, seed=1):
    """A history of random allocations and frees that ends with one that does not fit."""
    history = MemoryHistory(SimulatedMemory(BUDGET, expandable_segments=expandable_segments), max_entries)
    rng, live = random.Random(seed), []
    history.ensure("workspace", 8_519_680, made_in("workspace"))
    for key in range(num_events):
        if live and rng.random() < 0.5:
            history.free(live.pop(rng.randrange(len(live))))
        else:
            size = rng.choice([1, 700, 40_000, 1_500_000, 9 * MIB, 24 * MIB])
            try:
                history.alloc(key, size, made_in("train"))
                live.append(key)
            except DeviceOutOfMemory:
                for old in live[::2]:
                    history.free(old)
                del live[::2]
        if key % 500 == 499:
            history.empty_cache()
    with pytest.raises(DeviceOutOfMemory):
        history.alloc("last", BUDGET, made_in("evaluate"))
    return history


HISTORIES = {
    "segments": busy_history(),
    "expandable": busy_history(expandable_segments=True),
    "cut": busy_history(max_entries=1000),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_entries_lead_to_the_memory_that_the_snapshot_shows(history):
    """Replayed backwards from the blocks at the end, as the viewer does, no entry contradicts another."""
    snapshot = history.snapshot()
    live = {b["address"]: b for s in snapshot["segments"] for b in s["blocks"] if b["state"] == "active_allocated"}
    for entry in reversed(snapshot["device_traces"][0]):
        if entry["action"] == "alloc":
            assert live.pop(entry["addr"])["requested_size"] == entry["size"]
        elif entry["action"] == "free_completed":
            assert entry["addr"] not in live
            live[entry["addr"]] = {"requested_size": entry["size"]}
    assert len(history.entries) == history.entries.maxlen or not live


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_segments_that_come_and_go_add_up(history):
    snapshot = history.snapshot()
    reserved = 0
    for entry in snapshot["device_traces"][0]:
        kind = entry["action"]
        reserved += entry["size"] * (
            kind in ("segment_alloc", "segment_map") or -(kind in ("segment_free", "segment_unmap"))
        )
    now = sum(segment["total_size"] for segment in snapshot["segments"])
    assert now == history.memory.allocator.reserved_bytes
    assert reserved == now or len(history.entries) == history.entries.maxlen


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_pytorch_s_own_tools_open_it(history, tmp_path):
    path = tmp_path / "snapshot.pickle"
    write_snapshot(history.snapshot(), path)
    snapshot = pickle.loads(path.read_bytes())
    assert "total_reserved" in _memory_viz.segsum(snapshot)
    assert "raise OutOfMemoryError # 400.0MiB requested" in _memory_viz.trace(snapshot)
    assert "train.py:1:train" in _memory_viz.memory(snapshot, lambda lines: lines)
    assert "snapshot.pickle" in _memory_viz.trace_plot(snapshot)
    assert {op.name for op, _, _ in pickletools.genops(path.read_bytes())} <= VIEWER_OPCODES


def test_the_viewer_s_command_writes_a_page(tmp_path):
    write_snapshot(HISTORIES["segments"].snapshot(), tmp_path / "snapshot.pickle")
    command = [sys.executable, "-m", "torch.cuda._memory_viz", "trace_plot", "snapshot.pickle", "-o", "plot.html"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert "MemoryViz.js" in (tmp_path / "plot.html").read_text()


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_what_is_written_is_read_as_the_run_that_it_was(history, tmp_path):
    path = tmp_path / "snapshot.pickle"
    write_snapshot(history.snapshot(), path)
    assert is_snapshot(path)
    log, allocator = read_snapshot(path).log, history.memory.allocator
    oom = log.fatal_oom
    assert (oom.requested_bytes, oom.phase, oom.budget_bytes) == (BUDGET, Phase.EVAL, BUDGET)
    assert (oom.allocated_bytes, oom.reserved_bytes) == (allocator.allocated_bytes, allocator.reserved_bytes)
    assert oom.largest_free_block_bytes == allocator.largest_free_block_bytes()
    assert oom.where == "home/user/evaluate.py:1"
    assert sum(oom.live_bytes.values()) == allocator.allocated_bytes
    assert log.peak_reserved_bytes <= BUDGET
    if len(history.entries) < history.entries.maxlen:  # all that happened is there, but for unsplit tails
        assert log.peak_allocated_bytes == pytest.approx(allocator.peak_allocated_bytes, abs=0.02 * BUDGET)


def test_a_memory_that_replays_tells_its_last_phases():
    """Phases known by heart leave no events behind: they are run once more."""
    site = made_in("train")
    chain = [[("a", 30 * MIB, site), ("b", 5 * MIB, site)], [("b", FREE, None), ("a", FREE, None)]]
    memory = MemoizedMemory(SimulatedMemory(BUDGET))
    for _ in range(200):
        memory.begin("step", chain)
        memory.next_phase()
        memory.next_phase()
    memory.empty_cache()
    memory.begin("eval", [[("weights", 100 * MIB, site)], [("logits", BUDGET, made_in("evaluate"))]])
    memory.next_phase()
    with pytest.raises(DeviceOutOfMemory):
        memory.next_phase()
    history = history_of(memory, lambda key, position: "EVAL" if key == "eval" else ["FORWARD", "BACKWARD"][position])
    entries = list(history.entries)
    actions = collections.Counter(entry["action"] for entry in entries)
    num_steps = NUM_RECENT - 2  # beside the evaluation and the emptied cache
    assert actions["alloc"] == 2 * num_steps + 1
    assert entries[-1]["action"] == "oom"
    assert {entry["user_metadata"] for entry in entries} >= {"FORWARD", "BACKWARD", "EVAL"}
    log = log_of_snapshot(history.snapshot(), "memory")
    assert list(log.peaks()) == [Phase.FORWARD, Phase.BACKWARD, Phase.EVAL]
    assert log.fatal_oom.allocated_bytes == 100 * MIB


def test_a_snapshot_carries_its_run_and_says_that_it_is_simulated(tmp_path):
    path, run = tmp_path / "snapshot.pickle", as_published_oom().run
    write_snapshot(HISTORIES["segments"].snapshot(record_to_dict(run)), path)
    read = read_snapshot(path).log.run
    assert (read.source, read.model, read.gpu_name) == ("simulated", run.model, run.gpu_name)
    assert read.total_steps == 0, "a snapshot counts no steps"


def test_a_simulated_run_is_diagnosed_from_its_snapshot_alone():
    """The labels carry the batches, the run its model: enough for the finding that the log itself gives."""
    run = as_published_oom().run
    history = MemoryHistory(SimulatedMemory(run.budget_bytes))
    history.label = "FORWARD 1x2048"
    history.alloc("weights", 11 * GIB, made_in("load"))
    history.label = "EVAL 8x2048"
    with pytest.raises(DeviceOutOfMemory):
        history.alloc("logits", 8 * 2048 * 128256 * 4, made_in("evaluate"))
    finding = detect(log_of_snapshot(history.snapshot(record_to_dict(run)), "x"))[0]
    assert (finding.cause, finding.bytes, finding.phase) == ("eval-batch-logits", 8405385216, Phase.EVAL)
    assert "step 0" not in finding.explanation


def cuda_snapshot(*events, segments=()):
    return {"segments": list(segments), "device_traces": [list(events)]}


def event(action, size, *names, **place):
    frames = [{"filename": "/home/user/train.py", "line": 7, "name": name} for name in names]
    return {"action": action, "size": size, "stream": 0, "frames": frames, **place}


def test_without_a_failed_allocation_nothing_is_decided():
    log = log_of_snapshot(cuda_snapshot(event("alloc", 512, "forward", addr=1)), "x.pickle")
    assert log.outcome is Outcome.STOPPED
    assert "snapshot ends here" in verdict_sentence(result_of_log(log))


@pytest.mark.parametrize(
    ("names", "phase"),
    [
        (("forward", "train"), Phase.FORWARD),
        (("forward", "backward", "train"), Phase.BACKWARD),
        (("forward", "evaluation_loop", "train"), Phase.EVAL),
        (("forward", "generate"), Phase.GENERATE),
        (("cpp", "torch::autograd::Engine::evaluate_function"), Phase.BACKWARD),
    ],
)
def test_the_outermost_telling_function_names_the_phase(names, phase):
    oom = event("oom", 512, *names, device_free=0)
    assert log_of_snapshot(cuda_snapshot(oom), "x").fatal_oom.phase is phase


def test_a_limit_on_the_process_is_taken_for_the_budget():
    """`device_free` is the card's: with room there, set_per_process_memory_fraction stopped the allocation."""
    segments = [{"device": 0, "address": 0, "total_size": 20 * MIB, "allocated_size": 0, "blocks": []}]
    capped = event("oom", 30 * MIB, device_free=60 * MIB)
    full = event("oom", 30 * MIB, device_free=10 * MIB)
    assert log_of_snapshot(cuda_snapshot(capped, segments=segments), "x").fatal_oom.budget_bytes == 20 * MIB
    assert log_of_snapshot(cuda_snapshot(full, segments=segments), "x").fatal_oom.budget_bytes == 30 * MIB


def block(size, address=None, state="active_allocated", **more):
    return {"size": size, "state": state, **({} if address is None else {"address": address}), **more}


def segment(*blocks):
    return {"device": 0, "address": 0, "total_size": 40 * MIB, "allocated_size": 0, "blocks": list(blocks)}


def read_back(snapshot, tmp_path):
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(pickle.dumps(snapshot))
    return read_snapshot(path)


def test_blocks_of_pytorch_2_0_have_neither_address_nor_frames_and_are_counted_once(tmp_path):
    frames = [{"filename": "/home/user/model.py", "line": 3, "name": "load"}]
    segments = [segment(block(2 * MIB, history=[{"addr": 0, "real_size": 2 * MIB, "frames": frames}]), block(6 * MIB))]
    snapshot = cuda_snapshot(event("alloc", 6 * MIB, "forward", addr=2 * MIB), segments=segments)
    contents = read_back(snapshot, tmp_path).contents
    held = [(held.maker, held.num_bytes) for held in contents.by_line]
    assert held == [("home/user/train.py:7 forward", 6 * MIB), ("home/user/model.py:3 load", 2 * MIB)]
    assert contents.peak_allocated_bytes == 8 * MIB


def test_what_waits_for_a_stream_was_not_there_before_the_recording(tmp_path):
    events = [event("alloc", MIB, addr=0), event("free_requested", MIB, addr=0)]
    segments = [segment(block(MIB, 0, "active_awaiting_free"), block(4 * MIB, MIB))]
    log = read_back(cuda_snapshot(*events, segments=segments), tmp_path).log
    assert log.phases[0].allocated_before_bytes == 4 * MIB
    assert log.peak_allocated_bytes == 5 * MIB


def test_a_block_that_was_not_split_counts_whole(tmp_path):
    snapshot = cuda_snapshot(event("alloc", 19 * MIB, addr=0), segments=[segment(block(20 * MIB, 0))])
    read = read_back(snapshot, tmp_path)
    assert (read.log.phases[0].allocated_before_bytes, read.log.peak_allocated_bytes) == (0, 20 * MIB)
    assert [held.num_bytes for held in read.contents.by_stack] == [20 * MIB]


def test_without_events_no_peak_is_told(tmp_path):
    read = read_back(cuda_snapshot(segments=[segment(block(20 * MIB, 0))]), tmp_path)
    sentence = verdict_sentence(result_of_log(read.log))
    assert "no events" in sentence
    assert "peak" not in sentence
    titles = [section.title for section in contents_sections(read.contents)]
    assert "What was in use at the end" in titles


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_before_it_does(tmp_path):
    path, target = tmp_path / "evil.pickle", tmp_path / "made"
    path.write_bytes(pickle.dumps({"segments": [Harmful(str(target))], "device_traces": []}))
    with pytest.raises(LogError, match=r"posix\.mkdir|nt\.mkdir|os\.mkdir") as caught:
        load_snapshot(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[], {"a": 1}, "text", 3, {"segments": [1], "device_traces": [[2]]}, collections.OrderedDict()]
)
def test_any_other_pickle_is_one_clear_line(content, tmp_path):
    path = tmp_path / "other.pickle"
    path.write_bytes(pickle.dumps(content))
    if content == []:  # torch.cuda.memory_snapshot() of an unused GPU
        assert read_snapshot(path).log.outcome is Outcome.STOPPED
        return
    with pytest.raises(LogError) as caught:
        read_snapshot(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--replay {path}: ")


def test_a_snapshot_cut_anywhere_is_one_clear_line(tmp_path):
    whole = pickle.dumps(busy_history(num_events=30).snapshot(), protocol=4)
    path = tmp_path / "cut.pickle"
    for end in [*range(1, 60), *range(60, len(whole), 997)]:
        path.write_bytes(whole[:end])
        with pytest.raises(LogError):
            read_snapshot(path)


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_a_failed_allocation_carries_what_of_each_segment_is_in_use(history):
    """The simulated allocator's error and the snapshot of the same moment draw the same segments."""
    with pytest.raises(DeviceOutOfMemory) as caught:
        history.memory.alloc("once more", BUDGET, made_in("evaluate"))
    segments = caught.value.segments
    assert sum(sum(segment.runs) for segment in segments) == caught.value.reserved_bytes
    assert sum(sum(segment.runs[::2]) for segment in segments) == caught.value.allocated_bytes
    assert max(size for segment in segments for size in segment.runs[1::2]) == caught.value.largest_free_block_bytes
    oom = log_of_snapshot(history.snapshot(), "memory.pickle").fatal_oom
    assert oom.segments == segments
    assert record_from_dict(json.loads(json.dumps(record_to_dict(oom)))) == oom


def test_a_pickle_that_asks_for_all_memory_is_refused_at_once(tmp_path):
    file = tmp_path / "memo.pickle"
    file.write_bytes(pickle.PROTO + b"\x04}" + pickle.LONG_BINPUT + (2**32 - 2).to_bytes(4, "little") + b".")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(LogError, match="damaged or cut pickle"):
        load_snapshot(file)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
