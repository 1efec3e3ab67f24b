"""A pasted text: whatever it holds, it is read or refused in a line; every wording of PyTorch parses back."""

import gzip
import html
import json
import os
import sys
from io import BytesIO, TextIOWrapper

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_harness.configs.units import GIB, KIB, MIB
from memory_harness.harness.log.errors import LogError
from memory_harness.harness.log.traceback_text import MAX_BYTES, STANDARD_INPUT, parse_traceback, read_traceback

PIECES = (
    "Traceback (most recent call last):\n",
    '  File "a.py", line 3, in f\n',
    "CUDA out of memory. Tried to allocate 1.00 GiB",
    "Tried to allocate ",
    "RuntimeError: ",
    "GPU 0 has a total capacity of 5 GiB of which ",
    "│ /a.py:1 in f │\n",
    "---> 12 x\n",
    "[rank0]: ",
    "During handling of the above exception\n",
    "\\n",
    "\x1b[31m",
    '{"cells": [',
    "9" * 40,
    "\n",
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=20))).map("".join))
def test_any_text_is_read_without_an_error(text):
    found = parse_traceback(text)
    for frame in found.frames if found else ():
        assert "\x1b" not in frame.path + frame.function + frame.code


def as_printed(num_bytes: int) -> str:
    """Return a size as PyTorch's format_size does. Source: c10/cuda/CUDACachingAllocator.cpp."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if num_bytes > factor:
            return f"{num_bytes / factor:.2f} {unit}"
    return f"{num_bytes} bytes"


SIZES = st.integers(0, 200 * GIB)


def close_to(num_bytes: int) -> object:
    return pytest.approx(num_bytes, rel=0.006, abs=6)  # two decimals


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["1.0", "1.4", "1.8"]), SIZES, SIZES, SIZES, SIZES, SIZES)
def test_numbers_in_brackets_parse_back(release, requested, total, allocated, free, unused):
    last = {
        "1.0": f"{as_printed(unused)} cached)",
        "1.4": f"{as_printed(allocated + unused)} reserved in total by PyTorch)",
        "1.8": f"{as_printed(77)} allowed; {as_printed(allocated + unused)} reserved in total by PyTorch)",
    }[release]
    text = (
        f"RuntimeError: CUDA out of memory. Tried to allocate {as_printed(requested)} (GPU 3; {as_printed(total)} "
        f"total capacity; {as_printed(allocated)} already allocated; {as_printed(free)} free; {last}"
    )
    message = parse_traceback(text).message
    sizes = message.requested_bytes, message.total_bytes, message.allocated_bytes, message.free_bytes
    assert sizes == tuple(map(close_to, (requested, total, allocated, free)))
    assert message.gpu == 3
    assert message.reserved_bytes == close_to(allocated + unused)
    assert message.allowed_bytes == (77 if release == "1.8" else None)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.lists(SIZES, max_size=4), st.integers(20, 200))
def test_numbers_in_sentences_parse_back_however_the_lines_are_broken(
    requested, total, free, allocated, unused, others, width
):
    processes = " ".join(f"Process {n} has {as_printed(size)} memory in use." for n, size in enumerate(others))
    text = (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {as_printed(requested)}. GPU 0 has a total "
        f"capacity of {as_printed(total)} of which {as_printed(free)} is free. {processes} Including non-PyTorch "
        f"memory, this process has {as_printed(total)} memory in use. Of the allocated memory {as_printed(allocated)} "
        f"is allocated by PyTorch, with {as_printed(64)} allocated in private pools (e.g., CUDA Graphs), and "
        f"{as_printed(unused)} is reserved by PyTorch but unallocated."
    )
    start = len("torch.OutOfMemoryError: CUDA out of memory.")
    lines = [text[:start], *(text[at : at + width] for at in range(start, len(text), width))]
    message = parse_traceback("\n".join(lines) if len(lines) < 16 else text).message
    sizes = message.requested_bytes, message.total_bytes, message.free_bytes, message.process_bytes
    assert sizes == tuple(map(close_to, (requested, total, free, total)))
    assert (message.allocated_bytes, message.unused_bytes) == (close_to(allocated), close_to(unused))
    assert message.private_pool_bytes == 64
    assert message.listed_processes == tuple(map(close_to, others))


ASYNC = """torch.cuda.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)
Currently allocated     : 6.00 GiB
Requested               : 1.13 GiB
Device limit            : 8.00 GiB
Free (according to CUDA): 0 bytes
PyTorch limit (set by user-supplied memory fraction)
                        : 17179869184.00 GiB
"""


def test_the_asynchronous_allocator_s_message_is_read():
    message = parse_traceback(ASYNC).message
    assert message.requested_bytes == int(1.13 * GIB)
    assert (message.total_bytes, message.free_bytes, message.allocated_bytes) == (8 * GIB, 0, 6 * GIB)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "loss 0.3\nstep 4\n",
        '    if "CUDA out of memory" in str(error):\n',
        'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: no\n',
        '{"cells": [{"outputs": 3}]}',
    ],
)
def test_a_text_without_an_out_of_memory_is_none(text):
    assert parse_traceback(text) is None


def test_of_several_tracebacks_the_out_of_memory_is_taken_with_its_own_frames():
    other = 'Traceback (most recent call last):\n  File "first.py", line 1, in other\n    x()\nValueError: no\n'
    mine = 'Traceback (most recent call last):\n  File "second.py", line 2, in mine\n    y()\n'
    last = "RuntimeError: CUDA out of memory. Tried to allocate 2.00 MiB (GPU 0; 1.00 GiB total capacity)\n"
    found = parse_traceback(other + mine + last + other)
    assert [frame.path for frame in found.frames] == ["second.py"]
    assert found.num_messages == 1


def test_quotes_that_an_office_program_bent_are_read():
    text = "Traceback (most recent call last):\nFile “/a/b.py”, line 190, in do_train\nlora(x)\n"
    found = parse_traceback(f"{text}RuntimeError: CUDA out of memory. Tried to allocate 2.00 MiB")
    assert [(frame.path, frame.line, frame.code) for frame in found.frames] == [("/a/b.py", 190, "lora(x)")]


@pytest.mark.parametrize("halves", [("/opt/x/engine.py:330", "in __init__"), ("/opt/x/engine.py:330 in", "__init__")])
def test_a_frame_that_rich_broke_is_joined(halves):
    lines = [
        "╭─ Traceback (most recent call last) ─╮",
        *(f"│ {half:<34} │" for half in halves),
        "│ ❱  330 │   self.go() │",
    ]
    found = parse_traceback("\n".join([*lines, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB"]))
    assert found.frames == (("/opt/x/engine.py", 330, "__init__", "self.go()"),)


def test_a_notebook_s_outputs_and_a_file_of_powershell_are_read(tmp_path):
    lines = [
        "\x1b[0;31mOutOfMemoryError\x1b[0m Traceback (most recent call last)",
        "\x1b[32mCell In[3], line 7\x1b[0m\n",
    ]
    lines += ["----> 7 trainer.train()", "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"]
    notebook = tmp_path / "run.ipynb"
    notebook.write_text(json.dumps({"cells": [{"outputs": [{"traceback": lines}]}, {"source": "x"}]}), "utf-8")
    found = read_traceback(notebook)
    assert (found.frames[0].path, found.frames[0].line, found.frames[0].code) == ("In[3]", 7, "trainer.train()")
    windows = tmp_path / "log.txt"
    windows.write_bytes("\n".join(lines).encode("utf-16"))
    assert read_traceback(windows).message.requested_bytes == 20 * MIB


WINDOWS = """Traceback (most recent call last):
  File "C:\\Users\\nick\\train.py", line 3, in <module>
    loss = model(x)
  File "C:\\Program Files\\Python\\site-packages\\torch\\nn\\functional.py", line 7, in cross_entropy
    return torch._C._nn.cross_entropy_loss(input, target)
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 4.00 GiB
"""


@pytest.mark.parametrize("escaped", [str, repr, json.dumps, html.escape, lambda text: text.replace(" ", "\xa0")])
def test_a_path_of_windows_is_no_escaped_line_end(escaped):
    found = parse_traceback(escaped(WINDOWS))
    assert [(frame.path[-13:], frame.line, frame.code[:6]) for frame in found.frames] == [
        ("functional.py", 7, "return"),
        ("nick\\train.py", 3, "loss ="),
    ]
    assert found.message.requested_bytes == 2 * MIB


def test_a_traceback_in_one_line_keeps_its_message():
    assert parse_traceback(WINDOWS.replace("\n", " ")).message.total_bytes == 4 * GIB


WINDOWS_CONSOLE = """+--------------- Traceback (most recent call last) ---------------+
| H:\\My AI\\train_network.py:974 in <module>                       |
|   973 |   trainer = NetworkTrainer()                              |
| > 974 |   trainer.train(args)                                     |
+-----------------------------------------------------------------+
OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB
"""


def test_the_boxes_and_arrows_that_rich_draws_in_a_console_of_windows_are_read():
    found = parse_traceback(WINDOWS_CONSOLE)
    assert found.frames == (("H:\\My AI\\train_network.py", 974, "<module>", "trainer.train(args)"),)


@pytest.mark.parametrize(
    "mark", ["[1,{}]<stderr>:", "trainer-{}  | ", "2026-01-01 10:00:00 [rank{}]: ", "(Core pid={}) "]
)
def test_processes_that_write_in_turn_are_told_apart(mark):
    pairs = [(mark.format(0) + line, mark.format(1) + line) for line in WINDOWS.splitlines()]
    found = parse_traceback("\n".join(line for pair in pairs for line in pair))
    assert found.num_messages == 2
    assert [frame.code[:6] for frame in found.frames] == ["return", "loss ="]


@pytest.mark.parametrize("code", ["for part in parts[rank0]:", "mask = row-1 | column"])
def test_code_that_looks_like_the_mark_of_a_process_is_code(code):
    text = f'  File "a.py", line 1, in f\n    {code}\n  File "b.py", line 2, in g\n    go()\n'
    found = parse_traceback(f"{text}RuntimeError: CUDA out of memory. Tried to allocate 2.00 MiB")
    assert [frame.code for frame in found.frames] == ["go()", code]


VSCODE = """/home/me/nb.ipynb Cell 9 line [1](vscode-notebook-cell:/home/me/nb.ipynb#X43?line=0)
----> [1](vscode-notebook-cell:/home/me/nb.ipynb#X43?line=0) trainer.evaluate()
File [c:\\my env\\trainer.py:35](file:///C:/my%20env/trainer.py:35), in Trainer.evaluate(self, eval_dataset)
   [34](file:///C:/my%20env/trainer.py:34) start_time = time.time()
-> [35](file:///C:/my%20env/trainer.py:35) output = eval_loop(
OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB
"""


def test_the_links_that_visual_studio_code_copies_are_read_as_their_texts():
    assert parse_traceback(VSCODE).frames == (
        ("c:\\my env\\trainer.py", 35, "evaluate", "output = eval_loop("),
        ("/home/me/nb.ipynb Cell 9", 1, "", "trainer.evaluate()"),
    )


def test_a_progress_bar_behind_a_frame_and_blanks_behind_a_box_are_no_part_of_it():
    bar = "\u2588" * 20 + "| 37.0/37.0 [08:36<00:00, 3.90s/it]"
    message = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB"
    text = f'  File "/a.py", line 3, in backward{bar}\n    go()\n{message}'
    assert parse_traceback(text).frames == (("/a.py", 3, "backward", "go()"),)
    padded = ["│ /a.py:3 in   │       │", "│ train        │       │", "│ ❱ 3 │   go() │       │", message]
    assert parse_traceback("\n".join(padded)).frames == (("/a.py", 3, "train", "go()"),)


def test_colours_whose_escape_was_lost_are_no_part_of_a_frame():
    lines = ["[0;31mOutOfMemoryError[0m Traceback (most recent call last)", "Cell [0;32mIn[3], line 7[0m"]
    lines += [
        "[0;32m----> 7[0m [43mtrainer[49m[38;5;241m.[39mtrain()",
        "CUDA out of memory. Tried to allocate 2.00 MiB",
    ]
    assert parse_traceback("\n".join(lines)).frames == (("In[3]", 7, "", "trainer.train()"),)


@pytest.mark.parametrize(
    ("message", "device", "requested_bytes"),
    [
        ("torch.OutOfMemoryError: Allocation on device", "CUDA", None),
        ("RuntimeError: Invalid buffer size: 24.00 GiB", "MPS", 24 * GIB),
        ("RuntimeError: Allocation is out of device memory on current platform.", "XPU", None),
        ("RuntimeError: level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)", "XPU", None),
        ("Last error:\nCuda failure 2 'out of memory'", "CUDA", None),
    ],
)
def test_words_of_other_devices_and_allocators_are_known(message, device, requested_bytes):
    found = parse_traceback(message).message
    assert (found.device, found.requested_bytes) == (device, requested_bytes)


def test_a_decimal_comma_does_not_cut_a_number():
    text = "RuntimeError: CUDA out of memory. Tried to allocate 1,50 GiB (GPU 0; 8,25 GiB total capacity; 0 bytes free)"
    message = parse_traceback(text).message
    assert (message.requested_bytes, message.total_bytes) == (int(1.5 * GIB), int(8.25 * GIB))


def test_what_cannot_be_read_is_one_line(tmp_path):
    empty, large, fifo = tmp_path / "empty", tmp_path / "large", tmp_path / "fifo"
    empty.write_text("")
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    os.mkfifo(fifo)
    words = {empty: "no out-of-memory", large: "more than", fifo: "named pipe", tmp_path: "folder"}
    words[tmp_path / "missing"] = "No such file"
    packed = tmp_path / "oom.txt.gz"
    packed.write_bytes(gzip.compress(ASYNC.encode()))
    words[packed] = "it is gzip; unpack it first"
    for path, expected in words.items():
        with pytest.raises(LogError, match=expected) as caught:
            read_traceback(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"--traceback {path}: ")


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(ASYNC.encode())))
    assert read_traceback(STANDARD_INPUT).message.device == "CUDA"
