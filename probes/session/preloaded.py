"""Imports what a run needs into the process that workers are forked from; imported by nothing else."""

from memory_harness.probes.session.worker import import_libraries

import_libraries()
