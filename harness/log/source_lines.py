"""Lines of source code: whose they are, how they are shown, and which one stores into a name."""

from __future__ import annotations

import ast
import linecache
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeGuard

from memory_harness.configs.inputs import MAX_SOURCE_BYTES, read_text
from memory_harness.configs.places import PARTS_FOLDER

_PROJECT = PARTS_FOLDER.as_posix() + "/"
_HARNESS = f"{_PROJECT}harness/"
_OWN_NAMES = ("configs/", "harness/", "probes/", "reports/", "run_probe.py", "memory_harness.py")
OWN_FOLDERS = tuple(f"{_PROJECT}{name}" for name in _OWN_NAMES)
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib")).as_posix() + "/"

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_STORING_METHODS = {"add", "append", "appendleft", "extend", "insert", "put", "put_nowait", "set",
                    "setdefault", "update"}  # fmt: skip
_STORING_FUNCTIONS = {"heappush", "heappushpop", "insort", "insort_left", "insort_right"}  # into their first argument
_READING_METHODS = {"get", "items", "setdefault", "values"}  # whose results are parts of what a name holds
_ENTERING = ("__enter__", "enter_context")
_MAX_ALIASES = 20  # names under which one container is looked for
_MAKING_NUMBERS = {"bool", "float", "int", "item", "len", "round", "str", "tolist"}


class SourceLine(NamedTuple):
    """Where a frame was."""

    path: str
    line: int
    function: str

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{short_path(self.path)}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place} {self.function}"


@lru_cache(maxsize=4096)
def is_library(path: str) -> bool:
    """Return whether a file belongs to an installed package, to Python or to the harness, and so not to its user."""
    path = path.replace("\\", "/")
    return _is_installed(path) or path.startswith((_STANDARD_LIBRARY, _HARNESS, "<"))


def is_standard_library(path: str) -> bool:
    """Return whether a file is Python's own."""
    path = path.replace("\\", "/")
    return path.startswith(_STANDARD_LIBRARY) and not _is_installed(path)


def _is_installed(path: str) -> bool:
    return "/site-packages/" in path or "/dist-packages/" in path


def is_harness(path: str) -> bool:
    """Return whether a file is the harness's own."""
    return path.replace("\\", "/").startswith(OWN_FOLDERS)


def short_path(path: str) -> str:
    """Return the path within the harness, what follows site-packages, the path within its checkout, or three parts."""
    path = path.replace("\\", "/")
    if is_harness(path):  # first: it may be installed
        return path.removeprefix(_PROJECT)
    if "/site-packages/" in path:
        return path.split("/site-packages/")[-1]
    if path.startswith(_PROJECT):
        return path.removeprefix(_PROJECT)
    return "/".join(path.split("/")[-3:])


def users_line(frames: Iterable[SourceLine]) -> SourceLine | None:
    """Return the innermost frame that is the user's, else the innermost of all; the frames are innermost first.

    What calls the harness's loop is not looked at: it asked for the whole run, not for this allocation.
    """
    first = None
    for frame in frames:
        first = first or frame
        if frame.path.replace("\\", "/") == f"{_HARNESS}train/loop.py":
            break
        if not is_library(frame.path):
            return frame
    return first


def storing_line(path: str, name: str, first: int, last: int, *, of_object: bool = False) -> int | None:
    """Return the line between `first` and `last` of a file that stores something into `name`, or None.

    A line that adds to what is there (`name.append(...)`, `name[...] = ...`, `name += ...`) goes before an assignment,
    and that before a definition; of an object's attribute, `self.name = ...` before `name = ...`.
    """
    adding = adding_line(path, name, first, last)
    if adding is not None:
        return adding
    assigned: list[tuple[bool, int]] = []
    emptied: list[tuple[bool, int]] = []
    defined: list[tuple[bool, int]] = []
    for node in _nodes_between(path, first, last):
        if isinstance(node, _DEFINITIONS) and node.name == name:
            defined.append((False, node.lineno))
        named = [target for target in _targets(node) if _is_named(target, name)]
        if of_object and _sets_by_name(node, name):
            lines = emptied if isinstance(_value_set(node), ast.Constant) else assigned
            lines.append((False, node.lineno))
        if named:
            is_other = of_object and not any(isinstance(target, ast.Attribute) for target in named)
            # `name = None` and the like hold nothing yet
            lines = emptied if isinstance(_value_given(node, name), ast.Constant) else assigned
            lines.append((is_other, node.lineno))
    found = assigned or emptied or defined
    return min(found)[1] if found else None


def _value_given(node: ast.AST, name: str) -> ast.AST | None:
    """Return what an assignment gives a name, of a tuple the part that is its own."""
    value = getattr(node, "value", None)
    for target in getattr(node, "targets", ()):
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            parts = zip(target.elts, value.elts, strict=False)
            return next((given for part, given in parts if _is_named(part, name)), value)
    return value


def _sets_by_name(node: ast.AST, name: str) -> bool:
    """Return whether a node is `self.__dict__["name"] = ...`, `setattr(self, "name", ...)` or the like."""
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        if not isinstance(target, ast.Subscript) or "__dict__" not in ast.dump(target.value):
            return False
        return isinstance(target.slice, ast.Constant) and target.slice.value == name
    function = node.func if isinstance(node, ast.Call) else None
    called = getattr(function, "attr", getattr(function, "id", ""))
    if not isinstance(node, ast.Call) or called not in ("setattr", "__setattr__"):
        return False
    return any(isinstance(given, ast.Constant) and given.value == name for given in node.args)


def _value_set(node: ast.AST) -> ast.AST | None:
    """Return what an assignment, or a call of `setattr`, sets."""
    return node.args[-1] if isinstance(node, ast.Call) else getattr(node, "value", None)


def module_lines(path: str, name: str) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a file, first and last line, where `name` is the module's: no function has its own."""
    functions = sorted(_functions(path), key=lambda function: function.lineno)
    begin = 1
    for function in functions:
        if function.lineno >= begin and _has_own(function, name):
            yield begin, function.lineno - 1
            begin = (function.end_lineno or function.lineno) + 1
    yield begin, sys.maxsize


def _has_own(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Return whether a function takes or assigns a variable of that name that is not the module's."""
    has_own = False
    for node in ast.walk(function):
        if isinstance(node, ast.Global) and name in node.names:
            return False
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            has_own = has_own or node.id == name
        elif isinstance(node, ast.arg):
            has_own = has_own or node.arg == name
    return has_own


def adding_line(
    path: str,
    name: str,
    first: int,
    last: int,
    keys: Collection[str] = (),
    made_at: SourceLine | None = None,
    in_tuple: bool | None = None,
    *,
    of_object: bool = False,
) -> int | None:
    """Return the line between `first` and `last` that adds to what is stored in `name`, or None.

    Of several, those that name one of the keys, given as Python writes them, go first; then the one that made what is
    kept, those that add more than numbers, those that add a tuple or none as `in_tuple` says, those that mention what
    `made_at` assigns, those that add however much there is, and the first in the file. `of_object` leaves variables of
    that name out.
    """
    adding = list(_adding(path, name, first, last, of_object=of_object))
    with_key = []
    for node in adding:
        if any(_is_text(part) and repr(part.value) in keys for part in ast.walk(node)):
            with_key.append(node)
    made_line = made_at.line if made_at is not None and made_at.path == path else 0
    assigned = _names_assigned_from(path, made_line) if len(with_key or adding) > 1 else set()

    bounded = _bounded_lines(path, name) if len(with_key or adding) > 1 else set()

    def rank(node: ast.stmt | ast.expr) -> tuple[bool, bool, bool, bool, bool, int]:
        has_made = node.lineno <= made_line <= (node.end_lineno or node.lineno)
        is_unlike = in_tuple is not None and in_tuple is not _adds_tuple(node)
        mentions_it = _mentions(node, assigned)
        return not has_made, _adds_numbers(node), is_unlike, not mentions_it, node.lineno in bounded, node.lineno

    ranks = sorted(map(rank, with_key or adding))
    return ranks[0][-1] if ranks else None


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    """Return whether a node is a text, and so says more as a key than a number that may be anything."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _adding(path: str, name: str, first: int, last: int, *, of_object: bool = False) -> Iterator[ast.stmt | ast.expr]:
    """Yield what adds to what is stored in a name."""
    for node in _nodes_between(path, first, last):
        is_other = of_object and _has_variable(node, name)
        if _adds_to(node, name) and not is_other and not _is_begun_anew(path, node, name):
            yield node


def _is_begun_anew(path: str, node: ast.stmt | ast.expr, name: str) -> bool:
    """Return whether a variable gets another value just before, as in `loss = first; loss = loss + second`."""
    target = node.target if isinstance(node, ast.AugAssign) else next(iter(getattr(node, "targets", ())), None)
    if not isinstance(target, ast.Name):
        return False
    blocks = (ast.For, ast.AsyncFor, ast.While, ast.FunctionDef, ast.AsyncFunctionDef)
    innermost: list[ast.stmt] = []  # what its loop or function does each time
    for block in _nodes(path):  # outer ones first
        if isinstance(block, blocks) and block.lineno < node.lineno <= (block.end_lineno or 0):
            innermost = block.body
    before = [other for other in innermost if isinstance(other, ast.Assign) and other.lineno < node.lineno]
    named = [other for other in before if any(_is_named(target, name) for target in other.targets)]
    return any(not _adds_to(other, name) for other in named)


def _bounded_lines(path: str, name: str) -> set[int]:
    """Return the lines that run only while there is less than so much in what a name holds."""
    lines: set[int] = set()
    for node in _nodes(path):
        if isinstance(node, ast.If) and _asks_for_fewer(node.test, name):
            lines.update(range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1))
    return lines


def _asks_for_fewer(test: ast.expr, name: str) -> bool:
    """Return whether a condition is `len(name) < ...` or the like."""
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], (ast.Lt, ast.LtE)):
        return False
    length = test.left
    return isinstance(length, ast.Call) and _called_name(length) == "len" and _is_named(length.args[0], name)


class _Alias(NamedTuple):
    """A name under which a container is known among some lines."""

    name: str
    first: int
    last: int


def filling_line(path: str, name: str, first: int, last: int) -> int | None:
    """Return the line that adds to what is stored in `name` under another name, or None.

    That is a parameter that is given it, a variable or attribute that takes it or a part of it, or the result of a
    function that returns it.
    """
    aliases = [_Alias(name, first, last)]
    for alias in aliases:  # which grows
        found = [other for other in _aliases_of(path, alias) if other not in aliases]
        aliases += found[: _MAX_ALIASES - len(aliases)]
    filling = [alias for alias in aliases[1:] if any(map(_fills, _adding(path, *alias)))]
    return adding_line(path, *filling[0]) if filling else None


def _fills(node: ast.stmt | ast.expr) -> bool:
    """Return whether what adds to a part of a container fills that: a sum of numbers, or another value, does not."""
    is_of_variable = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    return not is_of_variable and not _adds_numbers(node)


def _aliases_of(path: str, alias: _Alias) -> Iterator[_Alias]:
    returning = set()
    for function in _functions(path):
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Return) and node.value is not None]
        if any(_is_alias(node.value, alias, set()) for node in inner):
            returning.add(function.name)
    for node in _nodes(path):
        if (isinstance(node, ast.Assign) and _is_alias(node.value, alias, returning)) or (
            isinstance(node, ast.For) and _is_alias(node.iter, alias, returning)
        ):
            yield from _named_by(path, node)
        elif isinstance(node, ast.Call):
            yield from _given_to(path, node, alias, returning)


def _is_alias(node: ast.AST | None, alias: _Alias, returning: Collection[str]) -> bool:
    """Return whether an expression is what a name holds, or a part of that."""
    if node is None:
        return False
    source = _source_of(node)
    if isinstance(source, ast.Call):
        return _called_name(source) in returning
    return alias.first <= getattr(source, "lineno", 0) <= alias.last and _is_named(source, alias.name)


def _named_by(path: str, node: ast.AST) -> Iterator[_Alias]:
    """Yield the variables that a statement sets, within their function, and the attributes."""
    around = function_around(path, getattr(node, "lineno", 0)) or (1, sys.maxsize)
    for target in _targets(node):
        if isinstance(target, ast.Name):
            yield _Alias(target.id, *around)
        else:
            yield _Alias(target.attr, 1, sys.maxsize)


def _given_to(path: str, call: ast.Call, alias: _Alias, returning: Collection[str]) -> Iterator[_Alias]:
    """Yield the parameters by which functions and classes of the file get what a name holds."""
    called, given = _called_name(call), call.args
    if called == "partial" and given:
        called, given = getattr(given[0], "attr", getattr(given[0], "id", "")), given[1:]
    positions = {index for index, value in enumerate(given) if _is_alias(value, alias, returning)}
    keywords = {keyword.arg for keyword in call.keywords if _is_alias(keyword.value, alias, returning)}
    for function in _functions_called(path, called) if positions or keywords else ():
        parameters = [parameter.arg for parameter in function.args.args]
        if parameters[:1] in (["self"], ["cls"]):
            del parameters[0]
        for index, parameter in enumerate(parameters):
            if index in positions or parameter in keywords:
                yield _Alias(parameter, function.lineno, function.end_lineno or function.lineno)


def _functions_called(path: str, name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions of a name in a file, and the constructors of a class of that name."""
    yield from (function for function in _functions(path) if function.name == name)
    for node in _nodes(path):
        if isinstance(node, ast.ClassDef) and node.name == name:
            yield from (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")


def _functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in _nodes(path) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def context_around(path: str, line: int, name: str) -> int | None:
    """Return the line of the outermost `with` around a line of a file whose context has a name, or None.

    A context may also be entered by a call, from which on it is open.
    """
    found = []
    for node in _nodes(path):
        if isinstance(node, ast.Call) and _called_name(node) in _ENTERING and node.lineno <= line:
            names = (part for part in ast.walk(node) if isinstance(part, (ast.Name, ast.Attribute)))
            found += [node.lineno for part in names if _is_named(part, name)]
        if isinstance(node, (ast.With, ast.AsyncWith)) and node.lineno <= line <= (node.end_lineno or node.lineno):
            parts = (part for item in node.items for part in ast.walk(item.context_expr))
            if any(isinstance(part, (ast.Name, ast.Attribute)) and _is_named(part, name) for part in parts):
                found.append(node.lineno)
    return min(found, default=None)


def function_around(path: str, line: int) -> tuple[int, int] | None:
    """Return the first and last line of the innermost function around the one that begins at a line, or None."""
    found = _innermost_function(path, line)
    return None if found is None else (found.lineno, found.end_lineno or found.lineno)


def function_name_around(path: str, line: int) -> str:
    """Return the name of the innermost function around a line; empty where there is none."""
    found = _innermost_function(path, line)
    return "" if found is None else found.name


def _innermost_function(path: str, line: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    around = [found for found in _functions(path) if found.lineno < line <= (found.end_lineno or found.lineno)]
    return max(around, key=lambda found: (found.lineno, found.end_lineno or 0), default=None)


def functions_calling(path: str, name: str, first: int, last: int) -> list[str]:
    """Return a method's name and those of the methods between two lines of a file that lead to a call of it."""
    functions = [function for function in _functions(path) if first <= function.lineno <= last]
    names = [name]
    for called in names:  # which grows
        for function in functions:
            is_known = function.name in (*names, "__init__")
            if not is_known and any(_is_own_method(node, called) for node in ast.walk(function)):
                names.append(function.name)
    return names


def _is_own_method(node: ast.AST, name: str) -> bool:
    """Return whether a node is `self.name`."""
    return isinstance(node, ast.Attribute) and node.attr == name and getattr(node.value, "id", "") == "self"


def calling_line(path: str, name: str, owner: str | None = None) -> int | None:
    """Return the first line of a file that calls a function, method or class of a name, or of an owner's; or None."""
    calls = [node for node in _nodes(path) if isinstance(node, ast.Call) and _called_name(node) == name]
    if owner is not None:
        calls = [call for call in calls if isinstance(call.func, ast.Attribute) and _is_named(call.func.value, owner)]
    return min((call.lineno for call in calls), default=None)


def statement_around(path: str, line: int) -> int:
    """Return the first line of the innermost statement that a line is part of, the line itself where none is found."""
    statements = (node for node in _nodes(path) if isinstance(node, ast.stmt))
    around = [node.lineno for node in statements if node.lineno <= line <= (node.end_lineno or node.lineno)]
    return max(around, default=line)


def is_in_comprehension(path: str, line: int) -> bool:
    """Return whether a line is part of what makes a list, a set or a dictionary in one expression."""
    made = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    nodes = (node for node in _nodes(path) if isinstance(node, made))
    return any(node.lineno <= line <= (node.end_lineno or node.lineno) for node in nodes)


def is_in_loop_header(path: str, line: int) -> bool:
    """Return whether a line is part of what a `for` goes through."""
    loops = (node.iter for node in _nodes(path) if isinstance(node, (ast.For, ast.AsyncFor)))
    return any(iterated.lineno <= line <= (iterated.end_lineno or iterated.lineno) for iterated in loops)


def handling_line(path: str, line: int) -> int | None:
    """Return the line that hands on the exception that a line of a file raises, where it is caught, or None."""
    found = []
    for node in _nodes(path):
        if not isinstance(node, ast.Try) or not node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0):
            continue
        for handler in node.handlers:
            calls = [part for part in ast.walk(handler) if isinstance(part, ast.Call) and _hands_on(part, handler.name)]
            found += [(-node.lineno, call.lineno) for call in calls]
    return min(found)[1] if found else None


def _hands_on(call: ast.Call, error: str | None) -> bool:
    takes_it = any(keyword.arg == "exc_info" for keyword in call.keywords)
    logs_it = isinstance(call.func, ast.Attribute) and call.func.attr == "exception"
    return takes_it or logs_it or (error is not None and any(_mentions(given, (error,)) for given in call.args))


def adding_lines_of_object(path: str, first: int, last: int) -> list[tuple[str, int]]:
    """Return the attributes that methods of a class add to after its making, each with the first line that does."""
    found: dict[str, int] = {}
    for node in _nodes_between(path, first, last):
        is_method = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "__init__"
        for part in ast.walk(node) if is_method else ():
            name = _attribute_of_self(part)
            if name and isinstance(part, (ast.stmt, ast.expr)) and _adds_to(part, name):
                found.setdefault(name, part.lineno)
            if isinstance(part, ast.FunctionDef):
                for decorator in part.decorator_list:
                    if any(isinstance(n, (ast.Name, ast.Attribute)) and _is_cache(n) for n in ast.walk(decorator)):
                        found.setdefault(part.name, decorator.lineno)
    return list(found.items())


def _is_cache(node: ast.Name | ast.Attribute) -> bool:
    return (node.id if isinstance(node, ast.Name) else node.attr) in ("lru_cache", "cache")


def _attribute_of_self(node: ast.AST) -> str | None:
    """Return the attribute of `self` that a statement or a call may add to."""
    target: ast.AST | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        target = node.func.value
    elif isinstance(node, ast.Assign):
        target = node.targets[0]
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
        target = node.target
    target = None if target is None else _without_subscripts(target)
    is_of_self = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    return target.attr if is_of_self and isinstance(target, ast.Attribute) else None


def setting_line(path: str, name: str, values: Collection[object] = ()) -> int | None:
    """Return the first line of a file that gives a setting: an argument of a call, a key, an attribute or a variable.

    Args:
        path: of the file.
        name: of the setting.
        values: only where it is given one of these constants; any but None and False where there are none.
    """
    lines = []
    for node in _nodes(path):
        for given, value in _given(node):
            constant = value.value if isinstance(value, ast.Constant) else ...
            is_wanted = constant in values if values else constant not in (None, False)
            if given == name and is_wanted:
                lines.append(value.lineno)
    return min(lines, default=None)


def sorting_line(path: str) -> int | None:
    """Return the first line of a file that sorts by a key, or asks for the indices in order."""
    calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if _called_name(call) == "argsort" or _sorts_by_key(call)]
    return min(lines, default=None)


def drawing_line(path: str) -> int | None:
    """Return the first line of a file that draws from probabilities, as a policy does what it is to do."""
    calls = [node for node in _nodes(path) if isinstance(node, ast.Call)]
    return min((call.lineno for call in calls if _draws(call)), default=None)


def _draws(call: ast.Call) -> bool:
    is_of_distribution = isinstance(call.func, ast.Attribute) and not call.args and not call.keywords
    return _called_name(call) == "multinomial" or (_called_name(call) == "sample" and is_of_distribution)


def _sorts_by_key(call: ast.Call) -> bool:
    has_key = any(keyword.arg == "key" for keyword in call.keywords)
    return has_key and _called_name(call) in ("sorted", "sort")


def _given(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a node gives values to, and these."""
    if isinstance(node, ast.keyword) and node.arg:
        yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value
    elif isinstance(node, ast.Assign):
        for target in _targets(node):
            yield target.id if isinstance(target, ast.Name) else target.attr, node.value


def registering_line(path: str, function: str) -> int | None:
    """Return the first line of a file that registers a hook, one that names the function before any other."""
    lines = []
    for node in _nodes(path):
        name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
        if isinstance(node, ast.Call) and name.startswith("register_") and name.endswith("hook"):
            names_it = any(_is_named(part, function) for part in ast.walk(node))
            lines.append((not names_it, node.lineno))
    return min(lines)[1] if lines else None


def source_files(path: str) -> list[str]:
    """Return what a module's code is known by: its file, or the cells of a notebook that have run."""
    cells = [name for name in list(linecache.cache) if name.startswith(f"{path}#")]
    return cells or [path]


def source_line(path: str, line: int) -> str:
    """Return a line of a file without its indentation; empty where it cannot be read."""
    return linecache.getline(path, line).strip()


def _names_assigned_from(path: str, line: int) -> set[str]:
    """Return the variables that the statement at a line assigns, and those that are assigned from them."""
    names: set[str] = set()
    assignments = [node for node in _nodes(path) if isinstance(node, ast.Assign)]
    assignments.sort(key=lambda node: node.lineno)
    for node in assignments:
        if node.lineno <= line <= (node.end_lineno or node.lineno) or _mentions(node.value, names):
            for target in _targets(node):
                names.add(target.id if isinstance(target, ast.Name) else target.attr)
    return names


def _has_variable(node: ast.AST, name: str) -> bool:
    return _mentions(node, (name,))


def _mentions(node: ast.AST, names: Collection[str]) -> bool:
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


def _adds_numbers(node: ast.AST) -> bool:
    """Return whether what an adding line adds is no more than numbers and texts."""
    if isinstance(node, ast.Call):
        return bool(node.args) and all(map(_is_number, node.args))
    return isinstance(node, (ast.Assign, ast.AugAssign)) and _is_number(node.value)


def _adds_tuple(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return any(isinstance(value, ast.Tuple) for value in node.args)
    return isinstance(node, (ast.Assign, ast.AugAssign)) and isinstance(node.value, ast.Tuple)


def _is_number(value: ast.expr) -> bool:
    if isinstance(value, (ast.Constant, ast.JoinedStr)):
        return True
    if isinstance(value, ast.Call):
        function = value.func
        return getattr(function, "attr", getattr(function, "id", "")) in _MAKING_NUMBERS
    if isinstance(value, (ast.Tuple, ast.List)):
        return all(map(_is_number, value.elts))
    return isinstance(value, ast.BinOp) and _is_number(value.left) and _is_number(value.right)


def _nodes_between(path: str, first: int, last: int) -> Iterator[ast.stmt | ast.expr]:
    for node in _nodes(path):
        if isinstance(node, (ast.stmt, ast.expr)) and first <= node.lineno <= last:
            yield node


@lru_cache(maxsize=64)
def _nodes(path: str) -> tuple[ast.AST, ...]:
    try:
        # a notebook's cells are no files
        text = "".join(linecache.getlines(path)) if "#" in path else read_text(Path(path), MAX_SOURCE_BYTES)
        return tuple(ast.walk(ast.parse(text)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _adds_to(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Call):
        is_method = isinstance(node.func, ast.Attribute) and node.func.attr in _STORING_METHODS
        if is_method and isinstance(node.func, ast.Attribute):
            return _is_named(_source_of(node.func.value), name)
        return _called_name(node) in _STORING_FUNCTIONS and bool(node.args) and _is_named(node.args[0], name)
    if isinstance(node, ast.AugAssign):
        return _is_named(_without_subscripts(node.target), name)
    if isinstance(node, ast.Assign):
        return _assigns_item(node, name) or _assigns_from_itself(node, name)
    return False


def _assigns_item(node: ast.Assign, name: str) -> bool:
    for target in node.targets:
        if isinstance(target, ast.Subscript) and _is_named(_without_subscripts(target), name):
            return True
    return False


def _assigns_from_itself(node: ast.Assign, name: str) -> bool:
    """Return whether an assignment takes what is there up again; `self.model = model` does not."""
    named = {ast.dump(target.value) if isinstance(target, ast.Attribute) else "" for target in _targets(node)
             if _is_named(target, name)}  # fmt: skip
    for part in ast.walk(node.value):
        if _is_named(part, name) and (ast.dump(part.value) if isinstance(part, ast.Attribute) else "") in named:
            return True
    return False


def _targets(node: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    """Yield the names and attributes that a node assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    for target in targets:
        if target is not None:
            for part in ast.walk(target):
                if isinstance(part, (ast.Name, ast.Attribute)) and isinstance(part.ctx, ast.Store):
                    yield part


def _called_name(call: ast.Call) -> str:
    """Return the name of the function, method or class that is called; empty where it has none."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _source_of(node: ast.AST) -> ast.AST:
    """Return the name or attribute of which an expression is an item, as `names` is of `names["a"].get(1)`."""
    while True:
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _READING_METHODS:
            node = node.func.value
        else:
            return node


def _without_subscripts(node: ast.AST) -> ast.AST:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _is_named(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)
