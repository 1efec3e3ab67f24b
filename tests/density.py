"""How dense the source is, per 1000 lines: comprehensions, those within others, conditional expressions.

    python -m tests.density [FOLDER ...]

A target, not a rule: at most 20 comprehensions, 0.5 nested ones and 12 conditional expressions, as the code bases have
that people are glad to read.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("configs", "harness", "probes", "reports")
TARGETS = {"comprehensions": 20.0, "nested comprehensions": 0.5, "conditional expressions": 12.0}

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def counts_of(text: str) -> Counter[str]:
    """Return the number of lines of a source text, and how often it has what `TARGETS` names."""
    counts = Counter(lines=len(text.splitlines()))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.IfExp):
            counts["conditional expressions"] += 1
        if isinstance(node, _COMPREHENSIONS):
            counts["comprehensions"] += 1
            counts["nested comprehensions"] += _is_nested(node)
    return counts


def _is_nested(node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> bool:
    inner = [part for part in ast.walk(node) if isinstance(part, _COMPREHENSIONS)]
    return len(node.generators) > 1 or len(inner) > 1


def main() -> None:
    """Print a line per part, and one for all of them."""
    total: Counter[str] = Counter()
    for part in sys.argv[1:] or PARTS:
        counts: Counter[str] = Counter()
        for path in (ROOT / part).rglob("*.py"):
            counts += counts_of(path.read_text(encoding="utf-8"))
        print(_line(part, counts))
        total += counts
    print(_line("all", total))


def _line(name: str, counts: Counter[str]) -> str:
    words = [f"{name}: {counts['lines']} lines"]
    for what, target in TARGETS.items():
        rate = 1000 * counts[what] / max(1, counts["lines"])
        words.append(f"{rate:.1f} {what} (target {target:g})")
    return ", ".join(words)


if __name__ == "__main__":
    main()
