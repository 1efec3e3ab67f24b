"""What keeps the parts apart: import layers, torch-free packages, one file for CUDA memory, complete registries."""

import ast
import functools
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_harness.probes.findings import UNEXPLAINED_GROWTH, Fix

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("configs", "harness", "probes", "reports")
"""A part may import itself and the parts before it."""

CUDA_MEMORY = {
    "_dump_snapshot",
    "_record_memory_history",
    "_snapshot",
    "caching_allocator_alloc",
    "caching_allocator_delete",
    "empty_cache",
    "host_memory_stats",
    "host_memory_stats_as_nested_dict",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_snapshot",
    "memory_stats",
    "memory_summary",
    "reset_accumulated_memory_stats",
    "reset_max_memory_allocated",
    "reset_peak_memory_stats",
    "set_per_process_memory_fraction",
}


def module_name(path: Path) -> str:
    parts = ("memory_harness", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))}


TORCH_FREE = tuple(
    name
    for name, path in FILES.items()
    if path.name == "__init__.py" and "ever imports torch" in path.read_text(encoding="utf-8").partition("\n")[0]
)
"""the folders that say so in the first line of their docstring"""


def syntax_tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


@functools.cache
def imports(name: str) -> tuple[str, ...]:
    """Return every module that a file imports, at its top and inside functions; `from a import b` as `a.b`."""
    found: list[str] = []
    for node in ast.walk(syntax_tree(name)):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} line {node.lineno}: imports are absolute"
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def files_imported(name: str) -> set[str]:
    """Return the files of the package that a file imports, those for type checkers alone left out."""
    unseen = {f"{node.module}.{alias.name}" for node in _for_type_checkers(name) for alias in node.names}
    files = set()
    for target in set(imports(name)) - unseen:
        file = target if target in FILES else target.rpartition(".")[0]
        if file in FILES:
            files.add(file)
    return files - {name}


def _for_type_checkers(name: str) -> list[ast.ImportFrom]:
    blocks = [node for node in syntax_tree(name).body if isinstance(node, ast.If)]
    blocks = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    return [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]


def room_of(name: str) -> str:
    """Return the folder of a file, the outermost but one: `memory_harness.harness.train`."""
    return ".".join(name.split(".")[:3])


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Return the sets of nodes that reach one another."""
    reached = {node: _reach(arrows, node) for node in arrows}
    found: list[set[str]] = []
    for node in arrows:
        circle = {other for other in reached[node] if node in reached.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reach(arrows: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in arrows.get(waiting.pop(), set()) - seen:
            seen.add(target)
            waiting.append(target)
    return seen


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down_the_parts(name):
    above = tuple(f"memory_harness.{part}" for part in PARTS[PARTS.index(name.split(".")[1]) + 1 :])
    wrong = [target for target in imports(name) if above and target.startswith(above)]
    assert not wrong, f"{name} imports {wrong}; the order is {' <- '.join(PARTS)}"
    bare = [target for target in imports(name) if target.partition(".")[0] in (*PARTS, "tests", "run_probe")]
    assert not bare, f"{name} imports {bare}; what is imported is memory_harness"


def test_no_file_imports_itself_through_others():
    assert not circles({name: files_imported(name) for name in FILES})


def test_no_folder_imports_itself_through_others():
    arrows: dict[str, set[str]] = {}
    for name in FILES:
        room = room_of(name)
        arrows.setdefault(room, set()).update(room_of(target) for target in files_imported(name))
    for room, targets in arrows.items():
        targets.discard(room)
    assert not circles(arrows)


def test_rooms_of_the_harness_import_those_above_them_in_its_readme():
    table = (ROOT / "harness" / "README.md").read_text(encoding="utf-8")
    order = [f"memory_harness.harness.{room}" for room in re.findall(r"^\| `(\w+)/`", table, re.MULTILINE)]
    for name in FILES:
        if room_of(name) in order:
            below = order[order.index(room_of(name)) + 1 :]
            wrong = {target for target in files_imported(name) if room_of(target) in below}
            assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("name", FILES)
def test_nothing_above_is_started_as_a_program(name):
    """A command that names a module of a part above, or `run_probe`, is an import by another door."""
    part = PARTS.index(name.split(".")[1])
    above = ("run_probe", *(f"memory_harness.{part}" for part in PARTS[part + 1 :]))
    for node in ast.walk(syntax_tree(name)):
        if isinstance(node, (ast.List, ast.Tuple)) and "sys.executable" in map(ast.unparse, node.elts):
            words = [word.value for word in node.elts if isinstance(word, ast.Constant)]
            wrong = [word for word in words if str(word).startswith(above)]
            assert not wrong, f"{name} line {node.lineno} starts {wrong}"


@pytest.mark.parametrize("name", FILES)
def test_nothing_reads_the_tests(name):
    """No path into `tests`, as one string or as `folder / "tests"`."""
    wrong = []
    for node in ast.walk(syntax_tree(name)):
        if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant) and node.right.value == "tests":
            wrong.append(node.lineno)
        if isinstance(node, ast.Constant) and re.match(r"tests[./]\w", str(node.value)):
            wrong.append(node.lineno)
    assert not wrong, f"{name} lines {wrong}: tests read the product, never the other way round"


def test_every_folder_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    installed = project["tool"]["setuptools"]["packages"]
    assert installed == sorted({f"memory_harness.{'.'.join(path.parts)}" for path in _folders()})


def _folders() -> Iterator[Path]:
    for part in PARTS:
        for path in (ROOT / part).rglob("*"):
            if path.suffix in (".py", ".toml", ".css", ".json"):
                yield path.parent.relative_to(ROOT)


@pytest.mark.parametrize("folder", [name for name, path in FILES.items() if path.name == "__init__.py"])
def test_every_folder_has_a_readme(folder):
    path = FILES[folder].with_name("README.md")
    assert path.exists(), f"{path.relative_to(ROOT)}: what lives here, what it may import, how one more is added"
    prose = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("|")]
    assert len(prose) <= 40, f"{path.relative_to(ROOT)}: {len(prose)} lines beside tables"


@pytest.mark.parametrize("folder", [name for name, path in FILES.items() if path.name == "__init__.py"])
def test_a_readme_names_every_module_of_its_folder(folder):
    """By its file, or as `eval-batch` of `eval_batch.py`; not where each is one more of a kind."""
    place = FILES[folder].parent
    text = (place / "README.md").read_text(encoding="utf-8")
    modules = [path.stem for path in FILES.values() if path.parent == place and not path.stem.startswith("__")]
    missing = [name for name in modules if f"`{name}.py`" not in text and f"`{name.replace('_', '-')}`" not in text]
    assert "One file each" in text or not missing, f"{place.relative_to(ROOT)}/README.md: add {missing}"


def test_torch_free_modules_never_bring_torch_in():
    modules = [n for n in FILES if any(f"{n}.".startswith(f"{free}.") for free in TORCH_FREE)]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'peft', 'bitsandbytes'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr


READ_BY_DETECTORS = ("log.",)


def test_detectors_read_nothing_but_the_log():
    """All that they take from the harness is how a log is written; they open no file and ask no device."""
    allowed = tuple(f"memory_harness.harness.{name}" for name in READ_BY_DETECTORS)
    for name in [name for name in FILES if name.startswith("memory_harness.probes.detectors")]:
        others = {t for t in imports(name) if t.startswith("memory_harness.harness.") and not t.startswith(allowed)}
        assert not others, f"{name} imports {others}"
        calls = [n for n in ast.walk(syntax_tree(name)) if isinstance(n, ast.Call) and not name.endswith(".causes")]
        opens = [n.lineno for n in calls if ast.unparse(n.func) in ("open", "Path", "read_run_log")]
        assert not opens, f"{name} lines {opens}: a detector gets the log, and reads nothing else"


@pytest.mark.parametrize("name", [name for name in FILES if name != "memory_harness.harness.devices.cuda"])
def test_only_the_cuda_device_touches_cuda_memory(name):
    def touches(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute) and node.attr in CUDA_MEMORY:
            return ast.unparse(node.value) in ("torch.cuda", "cuda", "torch.cuda.memory", "torch.accelerator")
        modules = ("torch.cuda", "torch.cuda.memory", "torch.accelerator")
        return isinstance(node, ast.ImportFrom) and node.module in modules

    lines = [node.lineno for node in ast.walk(syntax_tree(name)) if touches(node)]
    assert not lines, f"{name} lines {lines}: memory is measured and freed through harness/devices/cuda.py alone"


def modules_in(package: str) -> list[str]:
    return [name for name in FILES if name.startswith(package + ".")]


def test_every_detector_is_registered():
    """A public function from evidence alone to findings is a detector: the dict, or `detect` itself, must know it."""
    known = set(imports("memory_harness.probes.detectors"))
    for name in modules_in("memory_harness.probes.detectors"):
        functions = [node for node in syntax_tree(name).body if isinstance(node, ast.FunctionDef) and node.returns]
        functions = [f for f in functions if ast.unparse(f.args) == "evidence: Evidence"]
        returned = ("Finding | None", "list[Finding]")
        detectors = {f"{name}.{f.name}" for f in functions if f.name[0] != "_" and ast.unparse(f.returns) in returned}
        assert detectors <= known, f"add to DETECTORS in probes/detectors/__init__.py: {detectors - known}"


def test_every_fix_is_registered():
    fixes = importlib.import_module("memory_harness.probes.fixes")
    registered = fixes.FIXES | fixes.SPEEDUPS
    assert all(name == fix.name for name, fix in registered.items())
    for name in modules_in("memory_harness.probes.fixes"):
        defined = {value.name for value in vars(importlib.import_module(name)).values() if isinstance(value, Fix)}
        missing = defined - set(registered)
        assert not missing, f"add to FIXES or SPEEDUPS in probes/fixes/__init__.py: {missing}"


def test_every_fault_is_registered():
    imported = set(imports("memory_harness.probes.faults"))
    files = [name for name in modules_in("memory_harness.probes.faults") if not name.endswith(".__main__")]
    missing = {name for name in files if not any(target.startswith(name) for target in imported)}
    assert not missing, f"add to FAULTS in probes/faults/__init__.py: {missing}"


def test_registries_know_only_listed_causes():
    causes = importlib.import_module("memory_harness.probes.detectors.causes").load_causes()
    assert all(cause.id == name for name, cause in causes.items())
    detectors = importlib.import_module("memory_harness.probes.detectors").DETECTORS
    assert set(detectors) <= {*causes, UNEXPLAINED_GROWTH}
    for fix in importlib.import_module("memory_harness.probes.fixes").FIXES.values():
        assert set(fix.addresses) <= set(causes), f"{fix.name}: {set(fix.addresses) - set(causes)}"


def test_detectors_name_only_listed_causes():
    """Every `cause=` in a detector's file, as a literal or as a constant of the module, is an id of the cause table."""
    listed = {*importlib.import_module("memory_harness.probes.detectors").DETECTORS}
    for name in modules_in("memory_harness.probes.detectors"):
        module = importlib.import_module(name)
        given = [n.value for n in ast.walk(syntax_tree(name)) if isinstance(n, ast.keyword) and n.arg == "cause"]
        causes = {value.value for value in given if isinstance(value, ast.Constant)}
        causes |= {
            getattr(module, value.id) for value in given if isinstance(value, ast.Name) and hasattr(module, value.id)
        }
        assert causes <= listed, f"{name}: {causes - listed}"


IMPORTS_FOR_OTHERS = "memory_harness.probes.session.preloaded"
"""what the standard library's fork server is told to import: a module is all that it takes"""


def test_importing_has_no_side_effects():
    for name in set(FILES) - {IMPORTS_FOR_OTHERS}:
        calls = [n.lineno for n in syntax_tree(name).body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)]
        assert not calls, f"{name} lines {calls}: a call at import time"
