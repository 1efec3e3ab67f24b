"""Imports what a run needs into the process that workers are forked from; imported by nothing else.

The fork server leaves Ctrl-C to the process that started it, but only once this is imported.
"""

import signal

from memory_harness.probes.session.worker import import_libraries

_before = signal.signal(signal.SIGINT, signal.SIG_IGN)
import_libraries()
signal.signal(signal.SIGINT, _before)
