"""What grows is found, with the line that made it and the name that holds it; what does not grow is left alone."""

import gc
import inspect
import itertools
import weakref
from collections import deque
from pathlib import Path

import pytest
import torch

from memory_harness.harness.log.errors import DeviceOutOfMemory
from memory_harness.harness.log.records import Phase, SurvivorRecord
from memory_harness.harness.observe.holders import find_holder
from memory_harness.harness.observe.survivors import MAX_RECORDINGS, REST_STEPS, LastingRises
from tests.harness.observe.loops import Loop

KIB = 1024


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads cost more than they save on tensors as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def backward(loop, loss):
    loss.backward()


def here(function, text):
    """Return `file:line` of the line of a function that contains a text."""
    lines, first = inspect.getsourcelines(function)
    path = inspect.getsourcefile(function)
    return next(f"tests/harness/observe/{Path(path).name}:{first + n}" for n, line in enumerate(lines) if text in line)


def the_one(records):
    assert len(records) == 1, records
    return records[0]


GLOBAL_HISTORY = []


def keeps_in_global(loop, loss):
    loss.backward()
    GLOBAL_HISTORY.append(loop.batch())


def test_a_global_list_is_named():
    gc.unfreeze()  # a module is older than the run
    try:
        record = the_one(Loop().run(keeps_in_global))
    finally:
        gc.freeze()
        GLOBAL_HISTORY.clear()
    assert record.site == here(Loop, "torch.ones") + " batch"
    assert record.holder.startswith("global `GLOBAL_HISTORY`")
    assert record.holder.endswith(f"({here(keeps_in_global, 'append')})")
    assert (record.bytes_per_step, record.num_tensors) == (256 * KIB, 3)
    assert (record.shape, record.dtype, record.has_grad_fn) == ((256, 256), "float32", False)
    assert (record.phase, record.unit) == (Phase.FORWARD, "step")


class Logger:
    def __init__(self):
        self.history = {}

    def log(self, loop, loss):
        loss.backward()
        self.history.setdefault("outputs", []).append(loop.model(loop.batch()).detach())


@pytest.mark.parametrize("computes", [True, False], ids=["real", "meta"])
def test_an_attribute_of_the_user_s_object_is_named(computes):
    logger = Logger()
    record = the_one(Loop(computes).run(logger.log))
    assert record.site == here(Logger, ".append") + " log"
    assert record.holder.startswith("attribute `history` of Logger: dict with key 'outputs', list of ")
    assert record.holder.endswith(f"({here(Logger, '.append')})")


def make_hook():
    kept = deque()

    def hook(module, inputs, output):
        kept.append(output.detach().clone())

    return hook


def test_a_hook_is_called_a_hook():
    loop = Loop()
    loop.model.register_forward_hook(make_hook())
    record = the_one(loop.run(backward))
    assert record.holder.startswith("variable `kept` of the hook hook(): deque of ")
    assert record.holder.endswith(f"({here(make_hook, 'append')})")
    assert record.site == here(make_hook, "append") + " hook"


def test_a_local_variable_of_a_running_function_is_named():
    losses = []

    def step(loop, loss):
        loss.backward()
        losses.append(loop.batch())

    record = the_one(Loop().run(step))
    here_ = here(test_a_local_variable_of_a_running_function_is_named, "losses.append")
    assert "`losses`" in record.holder
    assert record.holder.endswith(f"({here_})")


def fails(loop):
    scratch = loop.batch()
    raise ValueError(scratch.shape)


def test_a_traceback_that_holds_frames_is_named():
    errors = []

    def step(loop, loss):
        loss.backward()
        try:
            fails(loop)
        except ValueError as error:
            errors.append(error)

    record = the_one(Loop().run(step))
    assert "traceback" in record.holder
    assert "local `scratch` of fails()" in record.holder
    assert "`errors`" in record.holder


def test_a_graph_that_is_kept_is_traced_to_the_loss():
    losses = []

    def step(loop, loss):
        losses.append(loss)  # never backwarded

    records = Loop().run(step)
    assert len(records) == 2, "what the loop's line made, and the batch"
    assert all(record.has_grad_fn for record in records)
    assert all("`losses`" in record.holder for record in records)
    assert any(record.holder.startswith("graph of ") for record in records)
    assert sum(record.bytes_per_step for record in records) >= 256 * KIB


def test_a_running_sum_keeps_every_graph():
    state = {"total": 0.0}

    def step(loop, loss):
        state["total"] = state["total"] + loss

    records = Loop().run(step)
    assert records
    assert all(r.has_grad_fn and "`state`" in r.holder for r in records)


def test_what_grows_at_every_third_step_is_found():
    kept = []

    def step(loop, loss):
        loss.backward()
        if loop.recorder.step % 3 == 0:
            kept.append(loop.batch())

    record = the_one(Loop().run(step, 40))
    assert "`kept`" in record.holder
    assert record.bytes_per_step == pytest.approx(256 * KIB / 3, rel=0.4)


def test_what_evaluation_hoards_is_found_before_it_ends():
    loop = Loop()

    def evaluate():
        outputs = []
        with loop.device.active(), torch.no_grad():
            for index in range(6):
                with loop.recorder.phase(Phase.EVAL, index=index):
                    outputs.append(loop.model(loop.batch()))

    evaluate()
    record = the_one([r for r in loop.records if isinstance(r, SurvivorRecord)])
    assert (record.phase, record.unit, record.bytes_per_step) == (Phase.EVAL, "EVAL", 256 * KIB)
    assert "local `outputs` of evaluate()" in record.holder


def ring(loop, loss, kept=deque(maxlen=3)):  # noqa: B006
    loss.backward()
    kept.append(loop.batch())


def keeps_scalars(loop, loss, kept=[]):  # noqa: B006
    loss.backward()
    kept.append(loss.detach())


def last_only(loop, loss):
    loss.backward()
    loop.last = loop.model(loop.batch())


def varies(loop, loss):
    loss.backward()
    loop.last = [loop.batch() for _ in range(loop.recorder.step * 7 % 5)]


def sums_detached(loop, loss):
    loss.backward()
    loop.total = getattr(loop, "total", 0) + loss.detach()


@pytest.mark.parametrize("step", [backward, ring, keeps_scalars, last_only, varies, sums_detached])
def test_what_does_not_grow_is_left_alone(step):
    loop = Loop()
    assert loop.run(step, 60) == []
    loop.last = None


def test_looking_keeps_nothing_alive():
    logger = Logger()
    loop = Loop()
    loop.run(logger.log)
    logger.history.clear()
    floor = loop.device.stats().allocated_bytes
    gc.collect()
    assert loop.device.stats().allocated_bytes == floor
    fresh = Loop()
    fresh.run(backward, 1)
    assert floor == fresh.device.stats().allocated_bytes


@pytest.mark.slow
def test_looks_are_few_and_far_between():
    kept = []

    def step(loop, loss):
        loss.backward()
        kept.append(torch.ones(8 * KIB, device=loop.device.torch_device))

    records = Loop(computes=False).run(step, (MAX_RECORDINGS + 2) * (REST_STEPS + 15))
    assert len(records) == MAX_RECORDINGS
    steps = [record.step for record in records]
    assert all(b - a >= REST_STEPS for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        ([10, 10, 10], 0),
        ([0, 10, 20, 30], 3),
        ([0, 100, 0, 100, 0], 0),
        ([0, 50, 10, 60, 20, 70, 30], 3),
        ([0] + [1] * 5, 1),
    ],
    ids=["flat", "line", "up and down", "line under noise", "one step"],
)
def test_only_lasting_rises_count(values, rises):
    levels = LastingRises(skipped=0)
    for value in values:
        levels.add(value * 8 * KIB)
    assert levels.num_rises == rises


def test_what_lived_when_memory_ran_out_outlives_the_frames():
    def fill():
        return [torch.empty(40 * KIB * KIB, dtype=torch.uint8) for _ in range(100)]

    loop = Loop()
    floor = loop.device.stats().allocated_bytes
    with loop.device.active(), pytest.raises(DeviceOutOfMemory):
        fill()
    assert loop.device.stats().allocated_bytes < floor + 40 * KIB * KIB
    assert loop.device.live_bytes({})["unknown"] > 900 * KIB * KIB


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_asking_who_holds_a_tensor_keeps_it_no_longer():
    tensor = torch.ones(4)
    seen = weakref.ref(tensor)
    assert "`tensor`" in str(find_holder(tensor))
    del tensor
    assert seen() is None


@pytest.mark.usefixtures("no_collector")
def test_an_out_of_memory_that_nobody_keeps_goes_with_its_frames():
    loop, seen = Loop(), None
    with loop.device.active():
        try:
            loop.device.memory.simulated.alloc("too large", 2**40, ())
        except DeviceOutOfMemory as error:
            seen = weakref.ref(error)
    assert seen() is None
