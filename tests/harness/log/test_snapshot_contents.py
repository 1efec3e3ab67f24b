"""What lived at a snapshot's highest moment, what grew and what is unused: recounted from the events one by one."""

import random

import pytest

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.snapshot import read_live_blocks, read_snapshot, replay_snapshot, write_snapshot
from memory_harness.harness.log.snapshot_contents import BEFORE, NO_LINE, more_of

SITE = "/venv/lib/python3.11/site-packages/"


def frame(name, path="/home/user/train.py", line=7):
    return {"filename": path, "line": line, "name": name}


def event(action, addr, size, *frames, **more):
    return {"action": action, "addr": addr, "size": size, "stream": 0, "frames": list(frames), **more}


def segment(*blocks, total=None):
    allocated = sum(block["size"] for block in blocks if block["state"] != "inactive")
    total = total or sum(block["size"] for block in blocks)
    return {"device": 0, "address": 0, "total_size": total, "allocated_size": allocated, "blocks": list(blocks)}


def block(addr, size, state="active_allocated", *frames):
    return {"address": addr, "size": size, "state": state, "frames": list(frames)}


def snapshot(events, *segments, **more):
    return {"segments": list(segments), "device_traces": [events], **more}


def test_what_lived_at_the_peak_is_there_with_its_makers_and_what_came_before():
    weights, forward, loss = frame("load", line=1), frame("forward", line=2), frame("loss", line=3)
    events = [
        event("alloc", 10 * MIB, 4 * MIB, forward),
        event("alloc", 20 * MIB, 8 * MIB, loss),
        event("free_completed", 20 * MIB, 8 * MIB, loss),
        event("free_completed", 30 * MIB, 3 * MIB, loss),  # which was made before
        event("alloc", 20 * MIB, MIB, loss),
    ]
    blocks = [block(0, 2 * MIB, "active_allocated", weights), block(10 * MIB, 4 * MIB), block(20 * MIB, MIB)]
    contents = replay_snapshot(snapshot(events, segment(*blocks)), "x").contents
    assert contents.peak_allocated_bytes == (2 + 3 + 4 + 8) * MIB
    found = {held.maker: held.num_bytes // MIB for held in contents.by_line}
    assert found == {
        "home/user/train.py:3 loss": 8,
        "home/user/train.py:2 forward": 4,
        BEFORE: 3,
        "home/user/train.py:1 load": 2,
    }
    assert sum(held.num_bytes for held in contents.by_stack) == contents.peak_allocated_bytes
    assert {held.maker: held.num_bytes // MIB for held in contents.by_part}["FORWARD"] == 4
    (peak,) = replay_snapshot(snapshot(events, segment(*blocks)), "x").log.peaks_seen
    assert peak.allocated_bytes == sum(peak.stacks.values()) == contents.peak_allocated_bytes
    assert peak.kinds["made in FORWARD"] == 4 * MIB
    assert any(stack.endswith("home/user/train.py:3 loss") for stack in peak.stacks)


def test_what_autograd_allocates_without_a_line_of_python_was_not_made_before():
    engine = {"filename": "??", "line": 0, "name": "torch::autograd::Engine::evaluate_function(x)"}
    events = [event("alloc", 0, MIB, engine), event("alloc", 10 * MIB, 2 * MIB), event("alloc", 20 * MIB, MIB, engine)]
    blocks = [block(0, MIB), block(10 * MIB, 2 * MIB), block(20 * MIB, MIB), block(30 * MIB, 4 * MIB)]
    replayed = replay_snapshot(snapshot(events, segment(*blocks)), "x")
    for held in (replayed.contents.by_line, replayed.contents.by_stack):
        assert {one.maker: one.num_bytes // MIB for one in held} == {NO_LINE: 4, BEFORE: 4}
    (peak,) = replayed.log.peaks_seen
    assert {kind: size // MIB for kind, size in peak.kinds.items()} == {
        "made in BACKWARD": 2,
        "made elsewhere": 2,
        "made before": 4,
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_random_course_is_recounted(seed):
    rng, live, events, before = random.Random(seed), {}, [], {900: 3 * MIB, 901: 5 * MIB}
    level = peak = sum(before.values())
    pool = dict(before)
    for addr in range(200):
        if pool and rng.random() < 0.45:
            old = rng.choice(list(pool))
            size = pool.pop(old)
            live.pop(old, None)
            level -= size
            events.append(event("free_completed", old, size, frame("step")))
        else:
            size = rng.choice([512, MIB, 7 * MIB])
            pool[addr] = live[addr] = size
            level += size
            events.append(event("alloc", addr, size, frame("forward", line=1 + addr % 3)))
        peak = max(peak, level)
    blocks = [block(addr, size) for addr, size in pool.items()]
    contents = replay_snapshot(snapshot(events, segment(*blocks)), "x").contents
    assert contents.peak_allocated_bytes == peak
    for held in (contents.by_line, contents.by_part, contents.by_stack):
        assert sum(one.num_bytes for one in held) == peak
    assert max(stretch.highest[0] for stretch in contents.course) == peak
    assert contents.course[-1].lowest[0] <= level


def leaking(num_steps, leak_bytes):
    events, addr = [], 0
    for step in range(num_steps):
        events.append(event("alloc", 10**9, 50 * MIB, frame("forward"), time_us=step * 10))
        if leak_bytes:
            addr += 1
            events.append(event("alloc", addr, leak_bytes, frame("log_loss", line=42), time_us=step * 10 + 1))
        events.append(event("free_completed", 10**9, 50 * MIB, frame("forward"), time_us=step * 10 + 2))
    return events


def test_what_grows_is_named_by_its_line_and_what_comes_and_goes_is_not():
    blocks = [block(addr, 2 * MIB) for addr in range(1, 101)]
    grown = replay_snapshot(snapshot(leaking(100, 2 * MIB), segment(*blocks)), "x").contents
    assert grown.growth_bytes >= 150 * MIB
    assert [held.maker for held in grown.grown] == ["home/user/train.py:42 log_loss"]
    flat = replay_snapshot(snapshot(leaking(100, 0)), "x").contents
    assert (flat.growth_bytes, flat.grown) == (0, ())


def test_annotations_say_what_was_allocated_when_they_were_set():
    notes = [{"device": 0, "stage": "START", "name": "step", "time_us": time_us} for time_us in (1, 501, 991)]
    blocks = [block(addr, 2 * MIB) for addr in range(1, 101)]
    taken = snapshot(leaking(100, 2 * MIB), segment(*blocks), external_annotations=notes)
    (mark,) = replay_snapshot(taken, "x").contents.marks
    assert (mark.name, mark.times) == ("step", 3)
    assert mark.last_bytes - mark.first_bytes == 99 * 2 * MIB


def test_unused_memory_is_counted_in_pieces():
    blocks = [block(0, 6 * MIB), block(6 * MIB, 2 * MIB, "inactive"), block(8 * MIB, 4 * MIB, "inactive")]
    contents = replay_snapshot(snapshot([], segment(*blocks)), "x").contents
    assert (contents.reserved_bytes, contents.unused_bytes) == (12 * MIB, 6 * MIB)
    assert (contents.num_free_pieces, contents.largest_free_block_bytes) == (2, 4 * MIB)
    assert contents.peak_allocated_bytes == 6 * MIB


def oom(device_free, size=GIB):
    return {"action": "oom", "size": size, "stream": 0, "frames": [frame("forward")], "device_free": device_free}


@pytest.mark.parametrize(
    ("events", "given", "expected", "is_known"),
    [
        ([], None, 8 * MIB, False),
        ([], GIB, GIB, True),
        ([oom(4 * MIB)], None, 12 * MIB, True),
        ([oom(4 * MIB)], 2 * GIB, 2 * GIB, True),
        # what it had at some moment was never above what it could have
        (
            [event("alloc", 1, 3 * GIB, frame("f")), event("free_completed", 1, 3 * GIB), oom(4 * MIB)],
            None,
            3 * GIB,
            True,
        ),
    ],
)
def test_the_budget_is_what_the_snapshot_or_the_user_says_else_unknown(events, given, expected, is_known):
    run = replay_snapshot(snapshot(events, segment(block(0, 8 * MIB))), "x", given).log.run
    assert run.budget_is_known is is_known
    assert run.budget_bytes == pytest.approx(expected, abs=9 * MIB)
    assert (
        run.budget_bytes >= replay_snapshot(snapshot(events, segment(block(0, 8 * MIB))), "x").log.peak_allocated_bytes
        or given
    )


def test_two_snapshots_differ_by_line(tmp_path):
    forward, logged = frame("forward", line=2), frame("log", line=42)
    before, after = tmp_path / "a.pickle", tmp_path / "b.pickle"
    write_snapshot(snapshot([], segment(block(0, MIB, "active_allocated", forward))), before)
    grown = [block(n * MIB, MIB, "active_allocated", logged) for n in range(1, 6)]
    write_snapshot(snapshot([], segment(block(0, MIB, "active_allocated", forward), *grown)), after)
    (more,) = more_of(read_live_blocks(before, "--compare"), read_live_blocks(after, "--compare"))
    assert (more.maker, more.num_bytes, more.num_blocks) == ("home/user/train.py:42 log", 5 * MIB, 5)


@pytest.mark.parametrize("size", [float("inf"), float("nan"), -1, True, 10**300, "8", None])
def test_a_size_that_is_none_is_refused_in_a_line(size, tmp_path):
    path = tmp_path / "bad.pickle"
    for where in ("event", "block", "segment"):
        taken = snapshot([event("alloc", 1, MIB, frame("f"))], segment(block(0, MIB)))
        if where == "event":
            taken["device_traces"][0][0]["size"] = size
        elif where == "block":
            taken["segments"][0]["blocks"][0]["size"] = size
        else:
            taken["segments"][0]["total_size"] = size
        write_snapshot(taken, path)
        with pytest.raises(LogError) as caught:
            read_snapshot(path)
        assert "\n" not in str(caught.value)


def nested():
    """Return a list whose text would fill any memory."""
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "where", ["size", "user_metadata", "frames", "line", "filename", "device_free", "device", "note"]
)
def test_data_whose_text_is_endless_end_in_a_line_or_do_nothing(where, tmp_path):
    path = tmp_path / "bomb.pickle"
    made = event("alloc", 1, MIB, frame("f"))
    taken = snapshot([made, oom(0)], segment(block(0, MIB)))
    if where in ("size", "user_metadata", "frames"):
        made[where] = nested()
    elif where == "device_free":
        taken["device_traces"][0][1][where] = nested()
    elif where == "device":
        taken["segments"][0][where] = "\x1b[2J"
    elif where == "note":
        made["time_us"] = 1
        taken["external_annotations"] = [{"name": nested(), "time_us": 1}]
    else:
        taken["device_traces"][0][1]["frames"] = [frame("f") | {where: nested()}]
    write_snapshot(taken, path)
    if where == "user_metadata":
        assert read_snapshot(path).log.fatal_oom is not None
        return
    with pytest.raises(LogError) as caught:
        read_snapshot(path)
    assert len(str(caught.value)) < 500


def test_a_file_larger_than_this_machine_holds_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.pickle"
    with path.open("wb") as file:
        file.write(b"\x80\x04")
        file.truncate(2**43)
    with pytest.raises(LogError, match="record fewer events"):
        read_snapshot(path)


def test_names_on_a_stack_cannot_steer_a_terminal(tmp_path):
    evil = frame("f\x1b[2J\u202e", "/x/\x1b]0;title\x07a\r.py")
    taken = snapshot([event("alloc", 1, MIB, evil), oom(0)], segment(block(1, MIB, "active_allocated", evil)))
    taken["device_traces"][0][1]["frames"] = [evil]
    found = replay_snapshot(taken, "x")
    texts = [str(found.log.fatal_oom), str(found.contents), str(found.failed)]
    assert not [text for text in texts if "\x1b" in text or "\\x1b" in text or "\u202e" in text or "\\r" in text]
