"""Who keeps a tensor, and which line it is that fills what keeps it."""

import argparse
import atexit
import functools
import weakref

import torch
import torchmetrics

from memory_harness.harness.log.records import OPTIMIZER_STATE
from memory_harness.harness.observe.holders import find_holder


def source_of_holder(read):
    """Return the line of the holder of what a function reads, which no variable of its own keeps."""
    return find_holder(read()).source


def test_a_dict_that_a_closure_only_counts_in_is_filled_by_the_function_around_it():
    made = []

    def step():
        notes = {}

        def run():
            notes["calls"] = notes.get("calls", 0) + 1

        notes["out"] = torch.ones(4)
        made.append(run)

    step()
    assert source_of_holder(lambda: made[0].__closure__[0].cell_contents["out"]) == 'notes["out"] = torch.ones(4)'


def test_generators_that_are_never_finished_are_kept_by_their_list():
    def tokens():
        cache = torch.ones(4)
        yield cache.sum()

    class Server:
        def __init__(self):
            self.streams = []

        def ask(self):
            self.streams.append(tokens())
            next(self.streams[-1])

    server = Server()
    server.ask()
    assert source_of_holder(lambda: server.streams[0].gi_frame.f_locals["cache"]) == "self.streams.append(tokens())"


def test_a_hook_that_reads_what_it_closes_over_is_kept_where_it_is_registered():
    layer = torch.nn.Linear(4, 4)

    def blank(mask):
        def multiply(module, inputs, output):
            return output * mask

        layer.register_forward_hook(multiply)

    blank(torch.ones(4))
    (hook,) = layer._forward_hooks.values()
    found = source_of_holder(lambda: hook.__closure__[0].cell_contents)
    assert found == "layer.register_forward_hook(multiply)"


def test_an_object_of_a_library_is_filled_where_it_is_called():
    options = argparse.Namespace(rows=[torch.ones(4)])
    read = functools.partial(getattr, options, "rows")
    handed_on = source_of_holder(lambda: options.rows[0])
    elsewhere = source_of_holder(lambda: read()[0])
    assert handed_on == "handed_on = source_of_holder(lambda: options.rows[0])"
    assert elsewhere == "options = argparse.Namespace(rows=[torch.ones(4)])"


def test_a_state_of_an_optimizer_that_only_a_library_holds_is_one_of_an_optimizer(monkeypatch):
    def keep():
        weight = torch.nn.Parameter(torch.ones(4))
        optimizer = torch.optim.AdamW([weight])
        weight.grad = torch.ones(4)
        optimizer.step()
        monkeypatch.setattr(torch.utils.data, "kept", optimizer, raising=False)

    keep()
    holder = find_holder(next(iter(torch.utils.data.kept.state.values()))["exp_avg"])
    assert OPTIMIZER_STATE in holder.words


def test_a_list_that_is_a_default_is_filled_by_the_line_that_adds_to_the_parameter():
    def remember(value, seen=[]):  # noqa: B006
        seen.append(value)

    remember(torch.ones(4))
    assert source_of_holder(lambda: remember.__defaults__[0][0]) == "seen.append(value)"


def test_a_container_is_filled_where_a_function_that_is_given_it_adds_to_it():
    def keep(store, key, value):
        store[key].append(value)

    stores = {"a": []}
    functools.partial(keep, stores, "a")(torch.ones(4))
    assert source_of_holder(lambda: stores["a"][0]) == "store[key].append(value)"


def test_what_a_slot_holds_is_filled_by_the_class():
    class Ring:
        __slots__ = ("items",)

        def push(self, value):
            self.items = [*getattr(self, "items", ()), value]

    ring = Ring()
    ring.push(torch.ones(4))
    assert source_of_holder(lambda: ring.items[0]) == 'self.items = [*getattr(self, "items", ()), value]'


def test_a_list_that_takes_all_that_a_generator_yields_is_kept_by_the_expression():
    found = []

    def values():
        last = None
        for _ in range(2):
            if last is not None:
                holder = find_holder(last())
                found.append(holder.source)
            value = torch.ones(4)
            last = weakref.ref(value)
            yield value
            del value

    list(values())
    assert found == ["list(values())"]


def test_a_dict_of_ones_own_class_is_filled_by_its_method():
    class Store(dict):
        def save(self, key, value):
            self[key] = value

    store = Store()
    store.save("a", torch.ones(4))
    assert source_of_holder(lambda: store["a"]) == "self[key] = value"


def test_the_line_that_calls_a_librarys_adding_method_fills_its_list():
    model, head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.add_param_group({"params": [head.bias]})
    del head
    source = source_of_holder(lambda: optimizer.param_groups[1]["params"][0])
    assert source == 'optimizer.add_param_group({"params": [head.bias]})'


def test_what_is_only_called_at_exit_is_kept_by_the_line_that_asks_for_it():
    def write(value):
        """Write nothing."""

    late = functools.partial(write, torch.ones(4))
    found = weakref.ref(late)
    atexit.register(late)
    try:
        del late
        assert source_of_holder(lambda: found().args[0]) == "atexit.register(late)"
    finally:
        atexit.unregister(found())


def test_what_a_parameter_is_given_is_kept_by_what_stores_it_beyond():
    class Batches:
        """Keeps nothing that it is not given."""

    def train(batches):
        return source_of_holder(lambda: batches.first)

    torch.utils.data.kept = Batches()
    torch.utils.data.kept.first = torch.ones(4)
    try:
        assert train(torch.utils.data.kept) == "torch.utils.data.kept.first = torch.ones(4)"
    finally:
        del torch.utils.data.kept


def test_a_parameters_state_is_put_where_a_line_of_the_users_does():
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.state[model.bias] = {"exp_avg": torch.ones(4)}
    holder = find_holder(optimizer.state[model.bias]["exp_avg"])
    assert OPTIMIZER_STATE in holder.words
    assert holder.source == 'optimizer.state[model.bias] = {"exp_avg": torch.ones(4)}'


def test_what_waits_for_an_object_to_go_is_kept_by_the_line_that_asks_for_it():
    class Run:
        """Goes at the end."""

    def flush(value):
        """Write nothing."""

    run = Run()
    last = weakref.finalize(run, flush, torch.ones(4))
    assert source_of_holder(lambda: last.peek()[2][0]) == "last = weakref.finalize(run, flush, torch.ones(4))"


def test_a_buffer_that_gets_longer_is_kept_by_the_line_that_joins():
    class Bank(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.ones(0))

        def forward(self, x):
            self.seen = torch.cat([self.seen, x])

    bank = Bank()
    bank(torch.ones(4))
    vars(bank)  # gives the attributes a dict of their own
    assert source_of_holder(lambda: bank.seen) == "self.seen = torch.cat([self.seen, x])"


def test_what_a_closure_only_reads_is_kept_where_it_was_made():
    def factor_of(step):
        state = {"weights": step}

        def factor(at):
            return at + len(state)

        return factor

    factor = factor_of(torch.ones(4))
    source = source_of_holder(lambda: factor.__closure__[0].cell_contents["weights"])
    assert source == 'state = {"weights": step}'


def test_a_metric_of_a_library_is_filled_by_the_line_that_updates_it():
    class Scorer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torchmetrics.MeanMetric()
            self.rank = torchmetrics.SpearmanCorrCoef()

        def validate(self, x):
            self.mean.update(x)
            self.rank.update(x, x)

    scorer = Scorer()
    scorer.validate(torch.ones(4))
    assert source_of_holder(lambda: scorer.rank.preds[0]) == "self.rank.update(x, x)"
