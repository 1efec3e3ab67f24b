"""What catches an error that a line of source code raises, and what the code does then. Never imports torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from memory_harness.configs.inputs import MAX_SOURCE_BYTES, read_text

_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_Try = ast.Try | ast.With


class Handler(NamedTuple):
    """A `try` around a line, or `with suppress(...)`: its lines, and how it lies in the loops of its function."""

    line: int  # of the first handler
    body: range
    handling: range
    following: range  # the lines after it in the same pass of the innermost loop, or up to the end of the function
    classes: tuple[tuple[str, ...], ...]
    """what it catches, as dotted names; empty where it catches everything"""
    is_search: bool
    """whether success leaves the innermost loop around it: the loop looks for what works"""
    is_nested: bool
    """whether that loop lies in another one of the function"""


def handlers_around(path: str, line: int) -> Iterator[Handler]:
    """Yield what may catch an error of a line, innermost first; what always raises anew is left out."""
    tree = _tree(path)
    if tree is None:
        return
    around = _nodes_around(tree, line)
    for index in reversed(range(len(around))):
        node = around[index]
        if isinstance(node, _FUNCTIONS):
            return
        if isinstance(node, (ast.Try, ast.With)) and _catches(node, line):
            yield _handler(node, around[:index])


@lru_cache(maxsize=64)
def _tree(path: str) -> ast.Module | None:
    try:
        return ast.parse(read_text(Path(path), MAX_SOURCE_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _nodes_around(tree: ast.Module, line: int) -> list[ast.AST]:
    """Return the statements that a line lies in, from the outside in."""
    found: list[ast.AST] = [tree]
    while True:
        for child in ast.iter_child_nodes(found[-1]):
            if isinstance(child, (ast.stmt, ast.ExceptHandler)) and line in _lines([child]):
                found.append(child)
                break
        else:
            return found


def _lines(nodes: Sequence[ast.stmt | ast.ExceptHandler]) -> range:
    if not nodes:
        return range(0)
    return range(nodes[0].lineno, (nodes[-1].end_lineno or nodes[-1].lineno) + 1)


def _catches(node: _Try, line: int) -> bool:
    if line not in _lines(node.body):
        return False
    if isinstance(node, ast.With):
        return _suppressed(node) is not None
    always_raises = all(isinstance(handler.body[-1], ast.Raise) for handler in node.handlers)
    return bool(node.handlers) and not always_raises


def _suppressed(node: ast.With) -> list[ast.expr] | None:
    """Return what `with suppress(...)` names; None for another context."""
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and _dotted_name(call.func)[-1:] == ("suppress",):
            return call.args
    return None


def _handler(node: _Try, outside: Sequence[ast.AST]) -> Handler:
    """Return what is to be known; `outside` are the nodes that it lies in, from the outside in."""
    loops: list[ast.AST] = []
    owner: ast.AST = outside[0]
    for other in outside:
        if isinstance(other, _FUNCTIONS):
            owner, loops = other, []
        elif isinstance(other, _LOOPS):
            loops.append(other)
    scope = loops[-1] if loops else owner
    last = (node.end_lineno or node.lineno) + 1
    end = getattr(scope, "end_lineno", None) or 10**9
    handling = range(node.lineno, node.lineno) if isinstance(node, ast.With) else _lines(node.handlers)
    return Handler(
        line=node.lineno if isinstance(node, ast.With) else node.handlers[0].lineno,
        body=_lines(node.body),
        handling=handling,
        following=range(last, end + 1),
        classes=tuple(_class_names(node)),
        is_search=bool(loops) and _leaves(node, loops[-1], outside),
        is_nested=len(loops) > 1,
    )


def _class_names(node: _Try) -> Iterator[tuple[str, ...]]:
    """Yield what is caught, as dotted names; nothing where one handler catches everything."""
    named: list[ast.expr] = []
    if isinstance(node, ast.With):
        named = _suppressed(node) or []
    else:
        for handler in node.handlers:
            if handler.type is None:
                return
            named.append(handler.type)
    for expression in named:
        parts = expression.elts if isinstance(expression, ast.Tuple) else [expression]
        yield from map(_dotted_name, parts)


def _dotted_name(node: ast.expr) -> tuple[str, ...]:
    """Return `torch.OutOfMemoryError` as its parts; one empty part for anything else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*_dotted_name(node.value), node.attr)
    return ("",)


def _leaves(node: _Try, loop: ast.AST, outside: Sequence[ast.AST]) -> bool:
    """Return whether the loop ends where nothing is raised: by `break` or `return`, or by what its condition asks."""
    succeeding = list(node.body)
    if isinstance(node, ast.Try):
        succeeding += node.orelse
    if _ends_in_exit(succeeding) or _ends_in_exit(_statements_after(node, outside[-1])):
        return True
    if not isinstance(loop, ast.While):
        return False
    asked = {part.id for part in ast.walk(loop.test) if isinstance(part, ast.Name)}
    handling = node.handlers if isinstance(node, ast.Try) else []
    return bool(asked & (_assigned(succeeding) - _assigned(handling)))


def _ends_in_exit(statements: Sequence[ast.stmt]) -> bool:
    """Return whether one of the statements, not only some of what they hold, leaves the loop."""
    for statement in statements:
        if isinstance(statement, (ast.Break, ast.Return)):
            return True
        if isinstance(statement, ast.With) and _ends_in_exit(statement.body):
            return True
    return False


def _statements_after(node: ast.AST, parent: ast.AST) -> list[ast.stmt]:
    """Return what follows a statement in its block, where its handlers do not go on there too."""
    if isinstance(node, ast.Try) and not all(_goes_elsewhere(handler.body) for handler in node.handlers):
        return []
    for name in ("body", "orelse", "finalbody"):
        block = getattr(parent, name, [])
        if node in block:
            return list(block[block.index(node) + 1 :])
    return []


def _goes_elsewhere(statements: Sequence[ast.stmt]) -> bool:
    return isinstance(statements[-1], (ast.Continue, ast.Raise))


def _assigned(nodes: Sequence[ast.AST]) -> set[str]:
    found = set()
    for node in chain.from_iterable(map(ast.walk, nodes)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
