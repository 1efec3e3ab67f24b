"""One thread for PyTorch in tests and what they start: to share tensors this small out takes longer than computing."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when PyTorch is imported

collect_ignore = ["sample_project"]  # a project of its own, run by tests/e2e/test_sample_project.py
