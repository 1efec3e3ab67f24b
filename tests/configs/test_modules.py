"""`--watch -m MODULE`: which file runs, found without importing its packages."""

import sys

import pytest

from memory_harness.configs.cli import parse_args
from memory_harness.configs.errors import ConfigError
from memory_harness.harness.observe.run_script import run_script


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the current folder, whose import is noticed."""
    folder = tmp_path / "my_package"
    (folder / "inner").mkdir(parents=True)
    for name in ("", "inner"):
        (folder / name / "__init__.py").write_text("import builtins\nbuiltins.my_package_was_imported = True\n")
    (folder / "helper.py").write_text("VALUE = 3\n")
    (folder / "inner" / "train.py").write_text("import sys\nfrom ..helper import VALUE\nARGUMENTS = sys.argv\n")
    (folder / "__main__.py").write_text("from .helper import VALUE\n")
    monkeypatch.chdir(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def test_the_file_and_the_name_are_found_and_nothing_is_imported(package):
    command = parse_args(["--watch", "-m", "my_package.inner.train", "--budget", "1 GiB", "--", "--epochs", "1"])
    assert command.watch == str(package / "inner" / "train.py")
    assert command.module == "my_package.inner.train"
    assert command.script_arguments == ("--epochs", "1")
    assert "my_package" not in sys.modules


def test_of_a_package_its_main_runs(package):
    command = parse_args(["--watch", "-m", "my_package"])
    assert (command.watch, command.module) == (str(package / "__main__.py"), "my_package.__main__")


@pytest.mark.parametrize("name", ["my_package.none", "none", "my_package.helper.none", "my_package.inner", "sys", ""])
def test_what_cannot_run_is_one_line(package, name):
    with pytest.raises(ConfigError, match=rf"^--watch -m {name}: no such module[^\n]*$"):
        parse_args(["--watch", "-m", name])


def test_it_runs_in_its_package_with_its_own_arguments(package):
    main = run_script(str(package / "inner" / "train.py"), ["--epochs", "1"], "my_package.inner.train")
    assert (3, [str(package / "inner" / "train.py"), "--epochs", "1"]) == (main.VALUE, main.ARGUMENTS)
    assert (main.__package__, main.__spec__.name) == ("my_package.inner", "my_package.inner.train")
