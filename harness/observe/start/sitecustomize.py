"""What Python imports first in a process that a watched script starts: lets it be observed too; see `child_processes`.

It leaves no trace: the import path, the environment and another `sitecustomize` are as they would be.
"""

import importlib.util
import json
import os
import sys
from importlib.machinery import PathFinder

VARIABLE = "MEMORY_HARNESS_WATCH"


def begin() -> None:
    """Take back what led here, let the other `sitecustomize` run, and observe this process."""
    here = os.path.dirname(os.path.abspath(__file__))
    settings = json.loads(os.environ.pop(VARIABLE))
    sys.path[:] = [path for path in sys.path if path != here]
    paths = [path for path in os.environ.pop("PYTHONPATH", "").split(os.pathsep) if path not in (here, "")]
    if paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    found = PathFinder.find_spec("sitecustomize")
    if found is not None and found.loader is not None:
        sys.modules["sitecustomize"] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules["sitecustomize"])
    sys.path.insert(0, settings["import_folder"])
    from memory_harness.harness.observe.child_processes import watch_this_process

    sys.path.remove(settings["import_folder"])
    watch_this_process(settings)


if VARIABLE in os.environ:  # else it is imported by its name, and has nothing to do
    begin()
