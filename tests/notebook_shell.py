"""Runs a notebook without Jupyter: `python notebook_shell.py NOTEBOOK` in the environment that is to be tried."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace


def code_of(notebook: Path) -> dict[str, str]:
    """Return the code of a notebook's cells by their ids."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


class Shell:
    """What of IPython the notebook needs: commands, variables in them, magics, and what a cell displays."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.shown: list[object] = []
        self.magics: dict[str, object] = {}
        self.names: dict[str, object] = {"display": self.shown.append, "run_command": self.run_command}

    def showtraceback(self) -> None:
        raise NotImplementedError

    def register_magic_function(self, function, kind, name):
        self.magics[name] = function

    def run_command(self, command: str) -> None:
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "JPY_PARENT_PID": "1", **self.environment}
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.shown.append(done.stdout)

    def run_cell(self, source: str, silent: bool = False) -> SimpleNamespace:
        """Run Python and commands; show what the last line of the cell is."""
        lines = []
        for line in source.splitlines():
            command = re.match(r"^(\s*)!(.*)", line)
            lines.append(line if command is None else f"{command[1]}run_command(f{command[2]!r})")
        body = ast.parse("\n".join(lines)).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), self.names)
        if last is not None:
            self.shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), self.names))
        return SimpleNamespace(error_before_exec=None, error_in_exec=None)

    def run(self, source: str) -> None:
        first, _, rest = source.partition("\n")
        if first.startswith("%load_ext "):
            importlib.import_module(first.split()[1]).load_ipython_extension(self)
        elif first.startswith("%%"):
            name, _, line = first[2:].partition(" ")
            self.shown.append(self.magics[name](line, rest))
        else:
            self.run_cell(source)


if __name__ == "__main__":
    whole = Shell({})
    for cell_source in code_of(Path(sys.argv[1])).values():
        whole.run(cell_source)
    print(*whole.shown, sep="\n")
