"""Where the harness lies: in a checkout, or installed."""

from __future__ import annotations

from pathlib import Path

import memory_harness

IMPORT_FOLDER = Path(memory_harness.__file__).resolve().parent
"""what has to be on `sys.path` for `import memory_harness`: the checkout's folder, or site-packages"""

PARTS_FOLDER = Path(memory_harness.__path__[0])
"""holds `configs`, `harness`, `probes` and `reports`"""
