"""Find out whether a QLoRA fine-tune fits a GPU, why it does not, and what makes it fit.

    python run_probe.py --max-length 2048 --samples 4000
    python run_probe.py --max-length 2048 --samples 4000 --train

Exit codes: 0 it fits, as configured or with verified fixes; 1 it does not; 2 something given is not usable;
3 the run died.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # here, as each process that is forked for a run imports this file anew
    from memory_harness.reports.command import main

    sys.exit(main())
