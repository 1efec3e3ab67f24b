"""Nothing leaks: the run lasts until its longest sample is drawn."""

from memory_harness.configs.units import MIB
from memory_harness.harness.data.prepare import Prepared
from memory_harness.probes.faults.base import Fault, with_lengths


def _prepare(data: Prepared) -> Prepared:
    # in the middle of the data, which the seeded shuffle draws tenth of twelve
    middle = len(data.train) // 2
    return with_lengths([64] * middle + [1024] + [64] * middle)(data)


FAULT = Fault(
    name="longest-sample",
    title="one sample is far longer than all others and comes late",
    settings={"batching": "dynamic", "max_length": 1024, "budget_bytes": 40 * MIB},
    prepare=_prepare,
)
