"""Where the harness lies, in a checkout or installed, and where a GPU's driver does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PARTS_FOLDER = Path(__file__).resolve().parent.parent
"""holds `configs`, `harness`, `probes` and `reports`"""

IMPORT_FOLDER = PARTS_FOLDER if (PARTS_FOLDER / "memory_harness.py").is_file() else PARTS_FOLDER.parent
"""what has to be on `sys.path` for `import memory_harness`: the checkout's folder, or site-packages"""

GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"), Path("/dev/nvmap"))
"""of NVIDIA, of AMD, of either under Windows' Linux, and of NVIDIA's small boards"""


def has_gpu_driver() -> bool:
    """Return whether there may be a GPU that PyTorch can use; where it is not known, there may."""
    return sys.platform != "linux" or any(driver.exists() for driver in GPU_DRIVERS)


def user_cache() -> Path:
    """Return the folder for what can be made again, in the user's cache."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given).absolute() if given else Path.home() / ".cache") / "memory-harness"
