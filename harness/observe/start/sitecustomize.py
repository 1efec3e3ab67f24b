"""What Python imports first in a process that a watched script starts: lets it be observed too; see `child_processes`.

It leaves no trace: the import path, the environment and another `sitecustomize` are as they would be.
"""

import importlib.util
import json
import os
import sys
from importlib.machinery import PathFinder

_here = os.path.dirname(os.path.abspath(__file__))
_settings = json.loads(os.environ.pop("MEMORY_HARNESS_WATCH"))
sys.path[:] = [path for path in sys.path if path != _here]
_paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != _here]
if _paths:
    os.environ["PYTHONPATH"] = os.pathsep.join(_paths)
else:
    os.environ.pop("PYTHONPATH", None)

_found = PathFinder.find_spec("sitecustomize")
if _found is not None and _found.loader is not None:
    sys.modules["sitecustomize"] = importlib.util.module_from_spec(_found)
    _found.loader.exec_module(sys.modules["sitecustomize"])

sys.path.insert(0, _settings["import_folder"])
from memory_harness.harness.observe.child_processes import watch_this_process  # noqa: E402

sys.path.remove(_settings["import_folder"])
watch_this_process(_settings)
