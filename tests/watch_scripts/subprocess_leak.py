"""The training is another script, which this one starts as launchers do."""

import subprocess
import sys
from pathlib import Path

subprocess.run([sys.executable, Path(__file__).with_name("thread_leak.py")], check=True)
