"""The mark of a report: what tells a file that this program wrote, and that nobody has changed, from all others.

It stands at the file's end, where each format allows it, with a checksum of all that is before it. A file without one
belongs to somebody, and is never overwritten.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

Kind = Literal["json", "svg", "html", "snapshot", "folded", "perfetto"]

_SAID = "memory_harness report, sha256 "
_MARKS: dict[Kind, tuple[bytes, bytes]] = {
    "json": (f',\n  "written_by": "{_SAID}'.encode(), b'"\n}\n'),
    "perfetto": (f',\n  "trace_written_by": "{_SAID}'.encode(), b'"\n}\n'),
    "folded": (_SAID.encode(), b" 0\n"),  # a stack that holds nothing
    "svg": (f"<!-- {_SAID}".encode(), b" -->\n"),
    "html": (f"<!-- {_SAID}".encode(), b" -->\n"),
    "snapshot": (f"\n{_SAID}".encode(), b"\n"),  # unpicklers end before it
}
"""what is before the checksum, and behind it"""
_END_OF_OBJECT = b"\n}\n"
_DIGEST = 64
"""characters of a checksum"""


def marked(kind: Kind, content: str | bytes) -> bytes:
    """Return a report with its mark; a report in JSON is an object, whose last member becomes the mark."""
    body = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    if kind in ("json", "perfetto"):
        body = body.removesuffix(_END_OF_OBJECT)
    before, behind = _MARKS[kind]
    return body + before + hashlib.sha256(body).hexdigest().encode() + behind


def is_marked(kind: Kind, path: Path) -> bool:
    """Return whether a file is a report of this kind as it was written. Raises OSError: it cannot be read."""
    content = path.read_bytes()
    before, behind = _MARKS[kind]
    body = content[: -(len(before) + _DIGEST + len(behind))]
    found = re.fullmatch(re.escape(before) + rb"([0-9a-f]{64})" + re.escape(behind), content[len(body) :])
    return found is not None and found[1].decode() == hashlib.sha256(body).hexdigest()
