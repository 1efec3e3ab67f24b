"""A pasted traceback of an out-of-memory: what PyTorch's message says in numbers, and the frames that led to it.

Messages of PyTorch 0.4 to 2.14 for CUDA, HIP, XPU and MPS are read, and frames as Python, IPython, rich and pytest show
them, behind whatever a log puts before a line.
Source: OutOfMemoryError in c10/cuda/CUDACachingAllocator.cpp of these releases, and public traces.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from memory_harness.configs.inputs import GZIP, open_input
from memory_harness.configs.printable import inert
from memory_harness.configs.units import GIB, KIB, MIB, TIB, format_bytes
from memory_harness.harness.log.errors import LogError

STANDARD_INPUT = Path("-")
HOST = "host"
"""The device of a message about the memory of the host."""
MAX_BYTES = 64 * MIB
"""Largest text that is read: a traceback has some kilobytes, the log of a long run around it some megabytes."""
MESSAGE_LINES = 16
"""Lines over which a message may be wrapped: rich and Slurm break it every 80 columns."""
MESSAGE_CHARACTERS = 1200
"""Characters of a message that are read, white space taken out; the longest public one, of ten processes, has 900."""
MAX_LINE = 4000
"""Characters of a line that are read; messages and frames have hundreds."""
MAX_FRAMES = 200
"""Frames that are kept of a traceback, the innermost: recursion makes thousands."""

_STREAM = re.compile(
    r"[^\"']{0,60}?(?<!\w)(\[(?:rank|default|trainer)\d+\]:|\([\w.]+ (?:rank=\d+ )?pid=\d+[^)]*\)|\[\d+,\d+\]<std\w+>:)"
    r"|([\w.-]{1,40}-\d+ +\| )"
)
"""Before each line of one of several processes that write into one log: of torchrun, ray and vLLM, MPI, containers."""

_BEGIN = "Traceback (most recent call last)"
_FUNCTION = r"(?P<function><[^>]*>|[^\s(]+)"
_PLACES = (
    re.compile(
        r'(?P<prefix>.*?)File "(?P<path>[^"]+)", line (?P<line>\d{1,9})(?:, in (?P<function><[^>]*>|[\w.]+).*)?'
    ),
    re.compile(rf"\s*File (?P<path>[^\s\"].*?):(?P<line>\d{{1,9}})(?:, in {_FUNCTION}.*)?"),
    re.compile(rf"\s*(?:Input |Cell )(?P<path>In ?\[\d+\]).*?, line (?P<line>\d{{1,9}})(?:, in {_FUNCTION}.*)?"),
    re.compile(rf"\s*<?(?P<path>(?:[A-Za-z]:\\[^<>]*|[^\s<>]*)(?:\.py|ipython-input-[^\s<>]*))>? in {_FUNCTION}.*"),
    re.compile(r"\s*(?P<path>\S.*\.ipynb Cell \d+) (?P<function>)(?:line|in) .*"),
    re.compile(r"\s*(?P<path>(?:/|~|[A-Za-z]:[\\/]|<).*?):(?P<line>\d{1,9}) in\s+(?P<function>\S+)\s*"),
    re.compile(r"(?P<prefix>\s*)(?P<path>\S+\.py):(?P<line>\d{1,9}): in (?P<function>\S+)\s*"),
)
"""Lines that name a frame: of Python, IPython 8, its cells, IPython 7 and Colab, Visual Studio Code, rich, pytest."""
_HINTS = ("File ", ".py", ".ipynb", "In[", "In [", " in ")
"""One of them is in each of these lines."""
_BROKEN = re.compile(r"\s*(?:/|~|[A-Za-z]:[\\/])\S*(?::\d+(?: in)?)?\s*")
"""The first half of a frame that rich had to break."""
_ARROW = re.compile(r"\s*(?:-+>|❱|>(?=\s*\d+ [│|]))\s*(?P<line>\d{1,9})(?:\s*[│|])*\s?(?P<code>.*)")
"""The line that ran, in the stretches of source that IPython and rich show."""

_OUT_OF_MEMORY = re.compile(
    r"(?P<device>CUDA|HIP|XPU|MPS)(?: backend| driver)?(?: error:)? out of memory"
    r"|cuda runtime error \(2\) ?: out of memory|CUDA_ERROR_OUT_OF_MEMORY|[Cc]uda failure (?:\d+ )?.?out of memory"
    r"|(?:CUDA error: )?(?P<library>CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS)_STATUS_ALLOC_FAILED"
    r"|(?P<host>DefaultCPUAllocator): (?:can't allocate|not enough) memory"
    r"|(?P<mps>Invalid buffer size): [\d.]+ ?[KMGT]i?B"
    r"|(?P<xpu>Allocation is out of device memory|level_zero backend failed with error: 39\b)"
    r"|Allocation on device(?: \d* ?would exceed allowed memory)?"
    r"|Tried to allocate [\d.]+ ?(?:bytes|[KMGT]i?B)"
)
_DEVICES = {"host": HOST, "mps": "MPS", "xpu": "XPU"}
_IS_RAISED = re.compile(r"\w(?:Error|Exception)\b[^\"']{0,40}$")
_TRIED = "riedtoallocate"
_STRAIGHT = str.maketrans("“”‘’\xa0", "\"\"'' ")  # as office programs and some trackers write quotes and spaces
_COLOUR = re.compile(r"(?:\^\[|\ufffd)?\[\d{1,3}(?:;\d{1,3})*m")  # whose escape character was lost when it was pasted
_LINK = re.compile(r"\[([^\[\]]{1,300})\]\((?:vscode|file|https?)[^()\s]*\)")  # as Visual Studio Code copies frames
_IS_ESCAPED = re.compile(r"(?<!\\)\\n(?:[^\w.\\]|\\[nux])")  # a path of Windows goes on after it
_ESCAPE = re.compile(r"\\(?:r\\n|n|u001b|x1b|[\"'\\])")
_FOLLOW_UP = "During handling of the above exception"

_SIZE = r"(?<!\d)(?<!\d[.,])(\d{1,15}(?:[.,]\d{1,6})?)(bytes|[KMGT]i?B)"
_NUMBERS = {
    "requested_bytes": rf"(?:triedtoallocate|Requested:|Invalidbuffersize:){_SIZE}",
    "total_bytes": rf"{_SIZE}totalcapaci?ty|totalcapaci?tyof{_SIZE}|Devicelimit:{_SIZE}",
    "free_bytes": rf"{_SIZE}(?:is)?free(?!\()|Free\(accordingtoCUDA\):{_SIZE}",
    "allocated_bytes": rf"{_SIZE}(?:alreadyallocated|isallocatedbyPyTorch)|(?:MPS|Currently)allocated:{_SIZE}",
    "reserved_bytes": rf"{_SIZE}reservedintotalbyPyTorch",
    "unused_bytes": rf"{_SIZE}(?:cached|isreservedbyPyTorchbutunallocated)",
    "private_pool_bytes": rf"with{_SIZE}allocatedinprivatepools",
    "allowed_bytes": rf"{_SIZE}allowed|maxallowed:{_SIZE}",
    "process_bytes": rf"thisprocesshas{_SIZE}memoryinuse",
}
"""How a message says each number, all white space taken out: a line may break anywhere. Before 1.4 `cached` stood for
what is reserved and not allocated."""
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _NUMBERS.items()}
_PROCESS = re.compile(rf"Process\d+has{_SIZE}memoryinuse", re.IGNORECASE)
_GPU = re.compile(r"GPU(\d{1,4})")
_FACTORS = {"b": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}


class Frame(NamedTuple):
    """A frame of a traceback; `line` is 0 and `code` empty where the text does not show them."""

    path: str
    line: int
    function: str
    code: str = ""


@dataclass(frozen=True)
class OomMessage:
    """The numbers of a message, None for what it does not say; all but whole bytes are rounded to two decimals."""

    device: str
    """`CUDA`, `HIP`, `XPU`, `MPS`, `host`, or the library that got no memory, such as `CUBLAS`"""
    gpu: int | None = None
    requested_bytes: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    allocated_bytes: int | None = None
    unused_bytes: int | None = None
    """reserved by PyTorch and not allocated"""
    private_pool_bytes: int | None = None
    allowed_bytes: int | None = None
    """what the process may use, where something limits it"""
    process_bytes: int | None = None
    """all that this process uses, the CUDA context included"""
    listed_processes: tuple[int, ...] = ()
    """bytes of each process that is named by its number; this one may be among them"""

    @property
    def reserved_bytes(self) -> int | None:
        """What PyTorch's allocator holds."""
        if self.allocated_bytes is None or self.unused_bytes is None:
            return None
        return self.allocated_bytes + self.unused_bytes


@dataclass(frozen=True)
class OomTraceback:
    """An out-of-memory as it was pasted."""

    message: OomMessage
    frames: tuple[Frame, ...]
    """innermost first; empty where the text has the message alone"""
    num_messages: int = 1
    """messages of an out-of-memory in the text; this is the first that comes with frames"""
    after_another: bool = False
    """whether it was raised while an earlier out-of-memory was being handled"""


def read_traceback(path: Path) -> OomTraceback:
    """Return the out-of-memory in a file, or in standard input where the path is `-`.

    Raises:
        LogError: it cannot be read, is too large, or holds no out-of-memory.
    """
    found = parse_traceback(_text_of(_content(path)))
    if found is None:
        raise LogError(
            f"--traceback {path}: no out-of-memory of PyTorch in it (looked for such as `CUDA out of memory. Tried to "
            "allocate`); give the text from `Traceback` to the message"
        )
    return found


def _content(path: Path) -> bytes:
    try:
        if path == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
        else:
            with open_input(path) as file:
                content = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror
        raise LogError(f"--traceback {path}: {reason}; give a text file, or - for standard input") from None
    if len(content) > MAX_BYTES:
        limit = format_bytes(MAX_BYTES)
        raise LogError(f"--traceback {path}: more than {limit}, which no traceback has; cut out the part around it")
    if content.startswith(GZIP):
        raise LogError(f"--traceback {path}: it is gzip; unpack it first")
    return content


_NO_NOTEBOOK = (ValueError, AttributeError, KeyError, TypeError, RecursionError)


def _text_of(content: bytes) -> str:
    """Return the text, which Windows' PowerShell writes as UTF-16; of a notebook, the outputs of its cells."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding, errors="replace")
    if text.lstrip().startswith("{"):
        try:
            return "\n".join(_outputs(json.loads(text)))
        except _NO_NOTEBOOK:  # some other text, or a log of JSON lines
            pass
    return text


def _outputs(notebook: dict[str, Any]) -> Iterator[str]:
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            yield from map(str, output.get("traceback", ()))
            text = output.get("text", ())
            yield "".join(text)


def parse_traceback(text: str) -> OomTraceback | None:
    """Return the out-of-memory in a text, None where there is none; the first with frames and numbers goes first."""
    found: list[OomTraceback] = []
    for lines in _streams(text):
        found += _failures(lines)
    if not found:
        return None
    best = max(found, key=_worth)  # the first of equals
    return OomTraceback(best.message, best.frames, len(found), best.after_another)


def _worth(failure: OomTraceback) -> tuple[bool, bool]:
    return failure.message.requested_bytes is not None, bool(failure.frames)


def _streams(text: str) -> list[list[str]]:
    """Return the lines of each process that wrote into the text, without what marks them."""
    streams: dict[str, list[str]] = {}
    name = ""
    for line in _plain(text).splitlines():
        line = _LINK.sub(r"\1", _COLOUR.sub("", inert(line[:MAX_LINE]))).rstrip()
        match = _STREAM.match(line)
        name = match[match.lastindex or 0] if match else name  # a message that was broken goes on without it
        stream = streams.setdefault(name, [])
        stream.append(_without_border(line[match.end() :] if match else line))
    return list(streams.values())


def _plain(text: str) -> str:
    """Return a text of a page's source, of a log of JSON or of Python's repr as it was before that was made of it."""
    if "&quot;" in text or "&lt;" in text:
        text = html.unescape(text)
    if "\\n" in text:
        lines = text.split("\n")
        text = "\n".join(_ESCAPE.sub(_unescaped, line) if _IS_ESCAPED.search(line) else line for line in lines)
    return text.translate(_STRAIGHT)


def _unescaped(escape: re.Match[str]) -> str:
    character = escape[0][-1]
    return {"n": "\n", "b": "\x1b"}.get(character, character)


def _without_border(line: str) -> str:
    """Return a line without the frame that rich draws around tracebacks."""
    bare = line.strip()
    return bare.lstrip("│┃|").rstrip("│┃| ") if bare.startswith(("│", "┃", "|")) else line


def _failures(lines: Sequence[str]) -> Iterator[OomTraceback]:
    """Yield each out-of-memory with the frames before it."""
    frames: list[Frame] = []
    has_failed = is_linked = is_follow_up = False
    for number, line in enumerate(lines):
        if _BEGIN in line:
            frames, is_follow_up, has_failed, is_linked = [], is_linked, False, False
        if _FOLLOW_UP in line:
            is_linked = has_failed or is_follow_up
        elif message := _message_at(lines, number):
            found = tuple(reversed(frames[-MAX_FRAMES:])) or _frames_below(lines, number)
            yield OomTraceback(message, found, after_another=is_follow_up)
            has_failed, frames, is_follow_up = True, [], False
        else:
            _take_frame(lines, number, frames)


def _frames_below(lines: Sequence[str], number: int) -> tuple[Frame, ...]:
    """Return the frames that Visual Studio Code shows below a message, the innermost first."""
    if not number or "Exception has occurred" not in lines[number - 1]:
        return ()
    frames: list[Frame] = []
    for below in range(number + 1, len(lines)):
        if _BEGIN in lines[below] or len(frames) == MAX_FRAMES:
            break
        _take_frame(lines, below, frames)
    return tuple(frames)


def _take_frame(lines: Sequence[str], number: int, frames: list[Frame]) -> None:
    """Add the frame that a line names, or take the line of code that ran from the source shown below one."""
    line = lines[number]
    if arrow := _ARROW.fullmatch(line):
        if frames:
            last = frames[-1]
            frames[-1] = last._replace(line=last.line or int(arrow["line"]), code=arrow["code"].strip(" │|"))
        return
    following = lines[number + 1] if number + 1 < len(lines) else ""
    if _BROKEN.fullmatch(line):
        between = " " if line.rstrip().endswith(" in") or following.lstrip().startswith("in ") else ""
        line = line.strip() + between + following.strip()
    if not any(hint in line for hint in _HINTS):
        return
    for place in _PLACES:
        match = place.fullmatch(line)
        if match is not None:
            found = match.groupdict()
            code = _code_after(found["prefix"], following) if "prefix" in found else ""
            function = (found["function"] or "").rpartition(".")[2]  # IPython names the class too
            frames.append(Frame(found["path"], int(found.get("line") or 0), function, code))
            return


def _code_after(prefix: str, following: str) -> str:
    """Return the line of code below a frame, without what a log puts before every line."""
    if 'File "' in following or not following.startswith(prefix.rstrip()):
        return ""
    return following[len(prefix) :].strip()


def _message_at(lines: Sequence[str], number: int) -> OomMessage | None:
    """Return the message that begins in a line, which may go on in those below; None where none does."""
    begin = _OUT_OF_MEMORY.search(lines[number])
    if begin is None:
        return None
    before = lines[number][: begin.start()]
    text = lines[number][begin.start() :]
    for following in lines[number + 1 : number + MESSAGE_LINES]:
        if _BEGIN in following:
            break
        text += following
    compact = "".join(text.split())[:MESSAGE_CHARACTERS]
    second = compact.find(_TRIED, compact.find(_TRIED) + 1)  # of a log that prints one after the other
    message = _numbers(compact[:second] if second > 0 else compact, begin)
    if message.requested_bytes is None and not _IS_RAISED.search(before) and before.strip():
        return None  # code that looks for such a message
    return message


def _numbers(compact: str, begin: re.Match[str]) -> OomMessage:
    sizes: dict[str, int] = {}
    for name, pattern in _PATTERNS.items():
        match = pattern.search(compact)
        if match is not None:
            sizes[name] = _bytes(*filter(None, match.groups()))
    reserved = sizes.pop("reserved_bytes", None)
    if reserved is not None and "allocated_bytes" in sizes:
        sizes["unused_bytes"] = reserved - sizes["allocated_bytes"]
    known = [device for group, device in _DEVICES.items() if begin[group]]
    device = begin["device"] or begin["library"] or next(iter(known), "CUDA")
    gpu = _GPU.search(compact)
    processes = tuple(_bytes(*match.groups()) for match in _PROCESS.finditer(compact))
    return OomMessage(device, int(gpu[1]) if gpu else None, **sizes, listed_processes=processes)


def _bytes(number: str, unit: str) -> int:
    return int(Decimal(number.replace(",", ".")) * _FACTORS[unit[0].lower()])
