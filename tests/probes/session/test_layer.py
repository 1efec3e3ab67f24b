"""Libraries at other versions, in a folder of the user's cache."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace

import pytest

from memory_harness.configs.errors import ConfigError
from memory_harness.configs.pins import read_pins
from memory_harness.harness.log.source_lines import is_library, short_path
from memory_harness.probes.session import layer
from memory_harness.probes.session.against import check_versions, sides_of
from memory_harness.probes.session.layer import installed_version, layer_of
from memory_harness.probes.session.process import RunRefused, start_worker
from tests.builders import make_log

PEFT = read_pins("peft==0.99.1")

INSTALLER = """
import json, pathlib, sys
arguments = sys.argv[1:]
if "--dry-run" in arguments:
    pathlib.Path(__file__).with_name("asked.json").write_text(json.dumps(arguments))
    names = [{"name": "peft", "version": "0.99.1"}, {"name": "helper", "version": "2"}]
    print(json.dumps({"install": [{"metadata": package} for package in names]}))
else:
    target = pathlib.Path(arguments[arguments.index("--target") + 1])
    target.mkdir(parents=True)
    (target / "installed.json").write_text(json.dumps(arguments))
"""
FAILING = """
import sys
print({said!r}, file=sys.stderr)
sys.exit(1)
"""


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """Return what puts a program in pip's place; layers go to a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def put(program: str) -> None:
        path = tmp_path / "installer.py"
        path.write_text(program)
        monkeypatch.setattr(layer, "_installer", lambda: [sys.executable, "-S", str(path)])

    put(INSTALLER)
    monkeypatch.setattr(layer, "_installed", lambda: ["torch==2.13.0"])
    return put


def nothing(line: str) -> None:
    pass


def test_it_holds_what_is_asked_for_and_what_changes_with_it(installer, tmp_path):
    said: list[str] = []
    folder = layer_of(PEFT, said.append)
    installed = json.loads((folder / "installed.json").read_text())
    assert installed[0] == "--no-deps"
    assert installed[-2:] == ["peft==0.99.1", "helper==2"]
    assert str(tmp_path / "cache") in str(folder)
    assert "helper==2" in said[-1]
    asked = json.loads((tmp_path / "asked.json").read_text())
    assert "peft==0.99.1" in asked
    assert f"transformers=={installed_version('transformers')}" in asked, "all others stay as they are"


def test_its_lines_are_shown_as_those_of_installed_packages(installer):
    path = str(layer_of(PEFT, nothing) / "peft" / "tuners" / "lora.py")
    assert is_library(path)
    assert short_path(path) == "peft/tuners/lora.py"


def test_it_is_made_once_for_the_same_versions(installer):
    folder = layer_of(PEFT, nothing)
    installer(FAILING.format(said="not again"))
    assert layer_of(PEFT, nothing) == folder
    with pytest.raises(ConfigError, match="not again"):
        layer_of(read_pins("peft==0.99.2"), nothing)


def test_another_environment_has_another_layer(installer, monkeypatch):
    folder = layer_of(PEFT, nothing)
    monkeypatch.setattr(layer, "_installed", lambda: ["torch==2.12.0"])
    assert layer_of(PEFT, nothing) != folder


def test_a_killed_build_is_not_taken_for_a_whole_one(installer):
    folder = layer_of(PEFT, nothing)
    half = folder.parent.with_name(f".{folder.parent.name}.killed.partial")
    folder.parent.rename(half)
    (half / "left").write_text("")
    assert layer_of(PEFT, nothing) == folder
    assert not half.exists()
    assert not (folder.parent / "left").exists()


def test_a_failed_build_leaves_nothing(installer):
    installer(INSTALLER.replace("target.mkdir(parents=True)", "target.mkdir(parents=True); sys.exit(1)"))
    with pytest.raises(ConfigError):
        layer_of(PEFT, nothing)
    assert [path.suffix for path in layer.cache_folder().iterdir()] == [".lock"]


def test_two_commands_at_once_make_one(installer):
    installer(
        INSTALLER.replace("target.mkdir(parents=True)", "target.mkdir(parents=True); __import__('time').sleep(0.2)")
    )
    said: list[str] = []
    threads = [threading.Thread(target=layer_of, args=(PEFT, said.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("installing") for line in said) == 1


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "ERROR: Could not find a version that satisfies the requirement peft==0.99.1 (from versions: 0.1, 0.2)\n"
            "ERROR: No matching distribution found for peft==0.99.1",
            "the package index has no peft==0.99.1",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by NewConnectionError\n"
            "ERROR: No matching distribution found for peft==0.99.1",
            "the package index cannot be reached",
        ),
        (
            "ERROR: Cannot install peft==0.99.1 and torch==2.13.0 because these have conflicting dependencies.\n\n"
            "The conflict is caused by:\n    The user requested torch==2.13\n    peft 0.99.1 depends on torch<2.12\n\n"
            "ERROR: ResolutionImpossible: for help visit https://pip.pypa.io",
            "do not go together with what is installed: peft 0.99.1 depends on torch<2.12",
        ),
        ("ERROR: something else\nERROR: and more", "cannot be installed: something else"),
        ("", "cannot be installed: no reason"),
    ],
)
def test_what_the_installer_says_becomes_one_line(installer, said, line):
    installer(FAILING.format(said=said))
    with pytest.raises(ConfigError) as error:
        layer_of(PEFT, nothing)
    assert str(error.value).startswith("--against peft==0.99.1: ")
    assert line in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_torch_is_said_to_be_large_before_it_is_fetched(installer):
    installer(INSTALLER.replace('"helper"', '"torch"'))
    said: list[str] = []
    layer_of(PEFT, said.append)
    assert "several GB" in said[-2]
    assert said[-1].startswith("installing")


def test_a_cache_that_cannot_be_written_is_said(installer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot be written .*set XDG_CACHE_HOME"):
        layer_of(PEFT, nothing)


def test_the_older_version_comes_first(installer):
    before, after = sides_of(PEFT, nothing)
    assert (before.layer, after.name) == (None, "peft 0.99.1")
    assert before.name == f"peft {installed_version('peft')} (installed)"
    before, after = sides_of(read_pins("peft==0.19.0"), nothing)
    assert (before.name, after.layer) == ("peft 0.19.0", None)


def test_what_is_installed_already_is_no_other_version(installer):
    here = f"torch=={installed_version('torch').partition('+')[0]}"
    with pytest.raises(ConfigError, match="is what is installed here"):
        sides_of(read_pins(here), nothing)
    before, after = sides_of(read_pins(f"{here} peft==0.99.1"), nothing)
    assert "torch" not in before.name + after.name


def test_a_library_that_is_not_installed_cannot_be_compared(installer, monkeypatch):
    monkeypatch.setattr("memory_harness.probes.session.against.installed_version", lambda name: None)
    with pytest.raises(ConfigError, match="trl is not installed here"):
        sides_of(read_pins("trl==1.16"), nothing)


def test_a_run_of_other_versions_than_asked_for_is_refused(installer):
    before, after = sides_of(PEFT, nothing)
    log = make_log()
    for side, found in ((after, "0.21.0"), (before, "0.99.1")):
        ran = replace(log, run=replace(log.run, environment={"peft": found}))
        with pytest.raises(RunRefused, match="was imported"):
            check_versions(ran, side)
    check_versions(replace(log, run=replace(log.run, environment={"peft": "0.99.1+cpu"})), after)


def wheel(folder, name: str, version: str, modules: dict[str, str]) -> None:
    """Write a wheel of a package without dependencies; `modules` are sources by path."""
    info = f"{name}-{version}.dist-info"
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{path},sha256={digest},{len(content)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")


@pytest.mark.slow
def test_pip_makes_a_layer_of_a_wheel_and_a_worker_imports_it(tmp_path, monkeypatch):
    wheel(tmp_path / "wheels", "peft", "0.99.1", {"peft/__init__.py": "__version__ = '0.99.1'\n"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    folder = layer_of(PEFT, nothing)
    assert sorted(path.name for path in folder.glob("*.dist-info")) == ["peft-0.99.1.dist-info"]
    with start_worker(layer=folder) as worker, open(f"/proc/{worker.process.pid}/environ") as file:
        environment = dict(entry.split("=", 1) for entry in file.read().split("\0") if "=" in entry)
    code = "import peft, importlib.metadata as m; print(peft.__version__, m.version('peft'), m.version('torch'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.99.1", "0.99.1", installed_version("torch")]
    with pytest.raises(ConfigError, match=r"the package index has no peft==0\.98"):
        layer_of(read_pins("peft==0.98"), nothing)
