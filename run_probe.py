"""Find out whether a QLoRA fine-tune fits a GPU, why it does not, and what makes it fit.

    python run_probe.py --help
    python run_probe.py --max-length 2048 --samples 4000

Exit codes: 0 it fits, as configured or with verified fixes; 1 it does not; 2 something given is not usable;
3 the run died; 4 this program has a defect.
"""

from __future__ import annotations

import sys

from memory_harness.reports.entry import main

if __name__ == "__main__":
    sys.exit(main())
