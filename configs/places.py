"""Where the harness lies: in a checkout, or installed."""

from __future__ import annotations

from pathlib import Path

PARTS_FOLDER = Path(__file__).resolve().parent.parent
"""holds `configs`, `harness`, `probes` and `reports`"""

IMPORT_FOLDER = PARTS_FOLDER if (PARTS_FOLDER / "memory_harness.py").is_file() else PARTS_FOLDER.parent
"""what has to be on `sys.path` for `import memory_harness`: the checkout's folder, or site-packages"""
