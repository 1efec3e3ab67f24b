"""How long `detect` takes on the log of a long run, and which families of detectors take it.

    python -m tests.bench.detect_speed

The logs are of 3200 steps in two epochs: one of a run that is as it should be, one with 1 MiB more after each step.
Seconds are the processor's, so that they depend little on what else the machine does.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections import Counter
from pathlib import Path

from memory_harness.configs.units import MIB
from memory_harness.harness.log.runlog import RunLog
from memory_harness.probes import detectors
from memory_harness.probes.detectors import detect
from tests.builders import AS_PUBLISHED, make_log

RECIPE = AS_PUBLISHED.with_fields(
    samples=4000, kbit_upcast=False, batching="dynamic", eval_batch_size=1, loss="chunked"
)
LENGTHS = (200, 260, 310, 420, 180, 350, 290, 240) * 3
LEAK_BYTES = {"clean": 0, "leaking": MIB}
REPEATS = 5


def measured_seconds(log: RunLog) -> float:
    """Return the least that `detect` has taken in a few calls."""
    found = []
    for _ in range(REPEATS):
        begin = time.process_time()
        detect(log)
        found.append(time.process_time() - begin)
    return min(found)


def seconds_by_file(log: RunLog) -> Counter[str]:
    """Return the time in what `detect` itself calls, by the file that it lies in; a profiler makes it longer."""
    profile = cProfile.Profile(time.process_time)
    profile.runcall(detect, log)
    found: Counter[str] = Counter()
    for (file, _, _), (*_, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        for (caller, _, _), (*_, cumulative) in callers.items():
            if caller == detectors.__file__ and file != caller:
                found[Path(file).stem] += cumulative
    return found


def main() -> None:
    """Print the seconds for both logs, in all and by family."""
    for name, leak_bytes in LEAK_BYTES.items():
        log = make_log(RECIPE, lengths=LENGTHS, leak_per_step=leak_bytes)
        print(f"{name}: {len(log.steps)} steps, {len(log.phases)} phases: {measured_seconds(log):.3f} s")
        for family, seconds in seconds_by_file(log).most_common():
            if seconds >= 0.001:
                print(f"    {family:<14} {seconds:6.3f} s under a profiler")


if __name__ == "__main__":
    main()
