"""How results are committed: JSON with a record a line, so that a change of one is a change of one line.

python -m tests.bench.records FILE.json NUM_LEVELS      rewrite a file in this form
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def write_records(path: Path, content: object, num_levels: int) -> None:
    """Write the content as JSON; what lies in the outer levels has a line for each element, what lies deeper none."""
    path.write_text(_text(content, num_levels, "\n") + "\n", encoding="utf-8")


def _text(value: Any, num_levels: int, line_break: str) -> str:
    parts = list(value.values()) if isinstance(value, dict) else value
    is_flat = not isinstance(parts, list) or not any(isinstance(part, (dict, list)) for part in parts)
    if num_levels == 0 or is_flat:
        return json.dumps(value, ensure_ascii=False)
    inner = line_break + " "
    lines = [_text(part, num_levels - 1, inner) for part in parts]
    if isinstance(value, list):
        return f"[{inner}{f',{inner}'.join(lines)}{line_break}]"
    named = [f"{json.dumps(name, ensure_ascii=False)}: {line}" for name, line in zip(value, lines, strict=True)]
    return f"{{{inner}{f',{inner}'.join(named)}{line_break}}}"


if __name__ == "__main__":
    write_records(Path(sys.argv[1]), json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), int(sys.argv[2]))
