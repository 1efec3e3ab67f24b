"""Public traces, of which only sizes and frames are kept, written again in the words of each release of PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRACES = [json.loads(line) for line in Path(__file__).with_name("traces.jsonl").read_text("utf-8").splitlines()]
HINT = " See documentation for Memory Management and PYTORCH_CUDA_ALLOC_CONF"


def message_of(wording: str, sizes: dict[str, Any]) -> str:
    """Return the message; `wording` is the release of PyTorch that first prints it so."""
    device = sizes.get("device", "CUDA")
    if wording == "cublas":
        return "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    if wording == "0.4":
        return "RuntimeError: CUDA error: out of memory"
    if wording == "mps":
        allocated, allowed = sizes["allocated"], sizes["allowed"]
        words = f"(MPS allocated: {allocated}, other allocations: 6.65 GB, max allowed: {allowed})"
        return (
            f"RuntimeError: MPS backend out of memory {words}. Tried to allocate {sizes['requested']} on private pool."
        )
    if "requested" not in sizes:
        return f"RuntimeError: {device} out of memory."
    begin = f"{device} out of memory. Tried to allocate {sizes['requested']}"
    if wording in ("1.0", "1.4", "1.10", "2.0"):
        name = "torch.cuda.OutOfMemoryError" if wording == "2.0" else "RuntimeError"
        return f"{name}: {begin} (GPU 0; {_in_brackets(sizes)}" + (HINT if wording in ("1.10", "2.0") else "")
    return f"torch.OutOfMemoryError: {begin}. {_in_sentences(wording, sizes)}"


def _in_brackets(sizes: dict[str, Any]) -> str:
    parts = [f"{sizes['total']} total capacity", f"{sizes['allocated']} already allocated", f"{sizes['free']} free"]
    if "allowed" in sizes:
        parts.append(f"{sizes['allowed']} allowed")
    if "unused" in sizes:
        parts.append(f"{sizes['unused']} cached")
    if "reserved" in sizes:
        parts.append(f"{sizes['reserved']} reserved in total by PyTorch")
    return "; ".join(parts) + ")"


def _in_sentences(wording: str, sizes: dict[str, Any]) -> str:
    capacity = "capacty" if wording == "2.1" else "capacity"  # as it was spelled then
    parts = [f"GPU 0 has a total {capacity} of {sizes['total']} of which {sizes['free']} is free."]
    if "allowed" in sizes:
        parts.append(f"{sizes['allowed']} allowed;")
    parts += [f"Process {4000 + n} has {size} memory in use." for n, size in enumerate(sizes.get("others", ()))]
    if "process" in sizes:
        parts.append(f"Including non-PyTorch memory, this process has {sizes['process']} memory in use.")
    if "allocated" in sizes:
        pools = f" with {sizes['pools']} allocated in private pools (e.g., CUDA Graphs)," if "pools" in sizes else ""
        parts.append(f"Of the allocated memory {sizes['allocated']} is allocated by PyTorch,{pools}")
        parts.append(
            f"and {sizes['unused']} is reserved by PyTorch but unallocated. If reserved but unallocated memory"
        )
        parts.append("is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.")
    return " ".join(parts)


def text_of(trace: dict[str, Any]) -> str:
    """Return the traceback of a trace, in the style of what printed it."""
    message = message_of(trace["wording"], trace["sizes"])
    frames = [_parts(frame) for frame in trace["frames"]]
    return STYLES[trace["style"]](message, frames)


def _parts(frame: str) -> tuple[str, str, str, str]:
    place, _, code = frame.partition(" :: ")
    path_and_line, _, function = place.partition(" ")
    path, _, line = path_and_line.rpartition(":")
    return path, line, function, code


def _python(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    lines = ["Traceback (most recent call last):"]
    for path, line, function, code in frames:
        lines += [f'  File "{path}", line {line}, in {function}', f"    {code}", f"    {'^' * len(code)}"]
    return "\n".join([*lines, message, ""])


def _rank(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    """Two processes write in turn; a launcher breaks long lines."""
    first = [f"[rank1]: {line}" for line in _python(message, frames).splitlines()]
    second = [f"[rank0]: {line}" for line in _python("RuntimeError: NCCL timed out", frames).splitlines()]
    mixed = [line for pair in zip(second, first, strict=True) for line in pair]
    last = mixed.pop()
    return "\n".join([*mixed, last[:100], last[100:]])


def _colab(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    lines = ["\x1b[0;31mOutOfMemoryError\x1b[0m                 Traceback (most recent call last)"]
    for path, line, function, code in frames:
        link = path if path.startswith("<") else f"\x1b[0;32m/usr/lib/{path}\x1b[0m"
        lines += [f"{link} in \x1b[0;36m{function}\x1b[0;34m(self, x)\x1b[0m", "      1 # before", ""]
        lines += [f"\x1b[0;32m---> {line}\x1b[0;31m     {code}\x1b[0m", f"     {line}1 after()", ""]
    name, _, words = message.partition(": ")
    return "\n".join([*lines, f"\x1b[0;31m{name}\x1b[0m: {words}"])


def _ipython(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    lines = ["-" * 75, "OutOfMemoryError                          Traceback (most recent call last)"]
    for path, line, function, code in frames:
        lines += [f"File /opt/{path}:{line}, in Trainer.{function}(self, x, **kwargs)", f"--> {line} {code}", ""]
    return "\n".join([*lines, message])


def _rich(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    lines = [f"╭{' Traceback (most recent call last) ':─^98}╮"]
    for path, line, function, code in frames:
        place = f"/opt/{path}:{line} in {function}"
        for start in range(0, len(place), 60):
            lines.append(f"│ {place[start : start + 60]:<96} │")
        lines += [f"│ ❱ {line} │   │   {code:<88} │", f"│{'':<98}│"]
    lines.append(f"╰{'─' * 98}╯")
    return "\n".join([*lines, *(message[start : start + 80] for start in range(0, len(message), 80))])


def _pytest(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    lines = ["    def test_train():", ">       trainer.train()", ""]
    for path, line, function, code in frames:
        lines += [f"{path}:{line}: in {function}", f"    {code}"]
    return "\n".join([*lines, f"E   {message}"])


def _vscode(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    name, _, words = message.partition(": ")
    lines = [f"Exception has occurred: {name}", words]
    for path, line, function, code in reversed(frames):
        lines += [f'  File "{path}", line {line}, in {function}', f"    {code}"]
    return "\n".join(lines)


def _warning(message: str, frames: list[tuple[str, str, str, str]]) -> str:
    return f"WARNING:root:{message.partition(': ')[2]}   | 1/2538 [00:00<?, ?batch/s]\n"


STYLES = {
    "python": _python,
    "rank": _rank,
    "colab": _colab,
    "ipython": _ipython,
    "rich": _rich,
    "pytest": _pytest,
    "vscode": _vscode,
    "warning": _warning,
}
