"""Public out-of-memory traces: their numbers, their place, and a cause only where the text proves one."""

import pytest

from memory_harness.configs.units import GIB
from memory_harness.harness.log.records import Phase
from memory_harness.harness.log.traceback_text import OomTraceback, parse_traceback
from memory_harness.probes.detectors.causes import load_causes
from memory_harness.probes.traceback.diagnosis import diagnose
from tests.probes.traceback.render import STYLES, TRACES, message_of, text_of

FIELDS = {
    "requested": "requested_bytes",
    "total": "total_bytes",
    "free": "free_bytes",
    "allocated": "allocated_bytes",
    "allowed": "allowed_bytes",
    "pools": "private_pool_bytes",
    "process": "process_bytes",
}


UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "MB": 2**20, "GiB": GIB, "GB": GIB, "TiB": 2**40}


def bytes_of(size: str) -> int:
    """Return bytes as PyTorch prints them: its MB are MiB."""
    number, unit = size.split()
    return round(float(number) * UNITS[unit])


def read(text: str) -> OomTraceback:
    found = parse_traceback(text)
    assert found is not None
    return found


def test_enough_threads_are_here():
    assert len(TRACES) >= 30
    assert len({trace["issue"] for trace in TRACES}) == len(TRACES)
    assert {trace["style"] for trace in TRACES} | {"ipython"} == set(STYLES)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace["issue"])
def test_a_public_trace_is_read_as_it_was_written(trace):
    found = read(text_of(trace))
    message, sizes = found.message, trace["sizes"]
    for name, field in FIELDS.items():
        expected = pytest.approx(bytes_of(sizes[name]), abs=1, rel=1e-9) if name in sizes else None
        assert getattr(message, field) == expected, field
    if "reserved" in sizes:
        assert message.reserved_bytes == pytest.approx(bytes_of(sizes["reserved"]), abs=2)
    if "unused" in sizes:
        assert message.unused_bytes == pytest.approx(bytes_of(sizes["unused"]), abs=1)
    assert len(message.listed_processes) == len(sizes.get("others", ()))
    expected = [frame.partition(" :: ")[2] for frame in reversed(trace["frames"])]
    assert [frame.code for frame in found.frames] == expected


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace["issue"])
def test_a_public_trace_is_diagnosed(trace):
    diagnosis = diagnose(read(text_of(trace)))
    place = diagnosis.reading.place
    found = diagnosis.reading.phase, place and place.id, diagnosis.cause
    assert found == (trace["phase"], trace["place"], trace["cause"])
    assert diagnosis.reading.family == trace["family"]
    assert {candidate.cause for candidate in diagnosis.candidates} <= set(load_causes())


@pytest.mark.parametrize("style", [style for style in STYLES if style not in ("warning", "pytest")])
@pytest.mark.parametrize("trace", [t for t in TRACES if t["frames"]][::6], ids=lambda trace: trace["issue"])
def test_who_printed_a_traceback_does_not_change_what_it_says(trace, style):
    first = diagnose(read(text_of(trace)))
    other = diagnose(read(text_of(trace | {"style": style})))
    assert (other.reading.phase, other.cause) == (first.reading.phase, first.cause)
    assert other.reading.message == first.reading.message


EVALUATION = """Traceback (most recent call last):
  File "train.py", line 1, in <module>
    trainer.{outer}()
  File "site-packages/transformers/trainer.py", line 4111, in evaluate
    output = eval_loop(
  File "site-packages/transformers/trainer.py", line 4400, in prediction_step
    loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
  File "site-packages/transformers/loss/loss_utils.py", line 40, in ForCausalLMLoss
    logits = logits.float()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 7.83 GiB. GPU 0 has a total capacity of 15.78 GiB of \
which 3.10 GiB is free. Including non-PyTorch memory, this process has 12.60 GiB memory in use. Of the allocated \
memory 12.00 GiB is allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but unallocated.
"""


def test_logits_of_an_evaluation_are_likely_where_training_passed_and_possible_where_none_did():
    alone = diagnose(read(EVALUATION.format(outer="evaluate")))
    assert alone.cause is None
    assert [candidate.cause for candidate in alone.candidates] == ["eval-batch-logits"]
    before_any_step = EVALUATION.replace("<module>", "_inner_training_loop")
    assert diagnose(read(before_any_step)).cause is None
    inside = EVALUATION.replace("<module>", "_maybe_log_save_evaluate")
    assert diagnose(read(inside)).cause == "eval-batch-logits"


def test_a_failure_while_one_is_handled_names_the_frames_that_are_kept():
    first = 'Traceback (most recent call last):\n  File "a.py", line 1, in step\n    model(x)\n'
    message = message_of("2.5", {"requested": "1.00 GiB", "total": "10.00 GiB", "free": "0 bytes"})
    between = "\n\nDuring handling of the above exception, another exception occurred:\n\n"
    found = parse_traceback(f"{first}{message}{between}{first}{message}")
    assert found is not None
    assert (found.num_messages, found.after_another) == (2, False)  # the first is shown: the second follows from it
    follow_up = first.replace("step", "retry") + message
    found = parse_traceback(f"{first}RuntimeError: CUDA out of memory.{between}{follow_up}")
    assert found is not None
    assert found.after_another
    assert diagnose(found).cause == "exception-holds-frames"


def failed_in(function, code, message="CUDA out of memory. Tried to allocate 1.00 GiB"):
    frame = f'  File "train/run.py", line 1, in {function}\n    {code}\n'
    return diagnose(read(f"Traceback (most recent call last):\n{frame}RuntimeError: {message}"))


def test_a_state_that_is_loaded_is_a_resumed_training_only_where_something_shows_one():
    assert failed_in("load_checkpoint", "optimizer.load_state_dict(saved)").cause == "resume-on-gpu"
    first = failed_in("load_checkpoint", "saved = torch.load(path)")
    assert [(candidate.cause, candidate.is_likely) for candidate in first.candidates] == [("resume-on-gpu", False)]


@pytest.mark.parametrize(("size", "is_likely"), [("20.00 MiB", False), ("1.00 GiB", True)])
def test_logits_of_a_few_tokens_fill_no_card(size, is_likely):
    evaluation = EVALUATION.replace("<module>", "_maybe_log_save_evaluate").replace("7.83 GiB", size)
    training = f"CUDA out of memory. Tried to allocate {size}"
    found = {
        "eval-batch-logits": diagnose(read(evaluation)),
        "logits-fp32-copies": failed_in("compute_loss", "loss = loss_fct(shift_logits, labels)", training),
    }
    for cause, diagnosis in found.items():
        told = [(candidate.cause, candidate.is_likely) for candidate in diagnosis.candidates]
        assert (cause, is_likely) in told


def test_only_a_failure_in_the_same_chain_is_one_that_is_being_handled():
    begin, oom = "Traceback (most recent call last):\n", "RuntimeError: CUDA out of memory. Tried to allocate 1.00 GiB"
    link = "\nDuring handling of the above exception, another exception occurred:\n\n"
    other = f'{begin}  File "a.py", line 1, in f\n    g()\nValueError: no\n'
    last = f'{begin}  File "b.py", line 2, in step\n    model(x)\n{oom}\n'
    skipped = "RuntimeError: CUDA out of memory.\n"
    assert read(f"{skipped}{link}{last}").after_another
    assert read(f"{skipped}{link}{other}{link}{last}").after_another
    assert not read(f"{skipped}step 4\n{other}{link}{last}").after_another
    assert not read(f"{skipped}{link}{other}step 4\n{last}").after_another


def test_an_engine_that_only_generates_has_no_loss():
    diagnosis = failed_in("execute_model", "logits = logits.to(torch.float32)")
    assert (diagnosis.reading.phase, diagnosis.candidates) == (Phase.GENERATE, ())


NO_HOST_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.mark.parametrize(
    ("function", "code", "cause"),
    [
        ("load_checkpoint", "optimizer.load_state_dict(saved)", None),
        ("save_checkpoint", "state = model.state_dict()", None),
        ("evaluation_loop", "all_preds = torch.cat((all_preds, logits))", "logits-hoarded-host"),
    ],
)
def test_memory_of_the_host_has_causes_of_its_own(function, code, cause):
    assert failed_in(function, code, NO_HOST_MEMORY).cause == cause


CARVED = {"requested": "1.00 GiB", "total": "16.00 GiB", "free": "0 bytes", "allocated": "13.00 GiB"}


@pytest.mark.parametrize(
    ("unused", "free", "cause"),
    [
        ("2.00 GiB", "0 bytes", "fragmentation"),
        ("900.00 MiB", "0 bytes", None),  # less than the request
        ("2.00 GiB", "4.00 GiB", None),  # the card had room: something else stopped it
    ],
)
def test_a_cache_in_pieces_needs_more_unused_than_asked_for(unused, free, cause):
    text = message_of("2.5", CARVED | {"unused": unused, "free": free})
    assert diagnose(read(text)).cause == cause


def test_a_nearly_full_card_is_not_called_fragmented():
    sizes = {"requested": "18.00 MiB", "total": "79.11 GiB", "free": "14.62 MiB", "allocated": "78.11 GiB"}
    diagnosis = diagnose(read(message_of("2.5", sizes | {"unused": "131.85 MiB", "others": ["79.08 GiB"]})))
    assert diagnosis.cause is None
    (candidate,) = diagnosis.candidates
    assert (candidate.cause, candidate.is_likely) == ("fragmentation", False)
    assert candidate.speaks_against


def test_the_process_of_a_container_is_told_from_its_neighbours():
    sizes = {"requested": "1.00 GiB", "total": "16.00 GiB", "free": "0 bytes", "allocated": "5.00 GiB"}
    diagnosis = diagnose(read(message_of("2.5", sizes | {"unused": "0 bytes", "others": ["10.00 GiB", "5.50 GiB"]})))
    assert diagnosis.reading.account.others_bytes == 10 * GIB
    assert diagnosis.cause == "other-process"
    alone = diagnose(read(message_of("2.5", sizes | {"unused": "0 bytes", "others": ["5.50 GiB"]})))
    assert (alone.reading.account.others_bytes, alone.cause) == (0, None)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"requested": "64.00 MiB", "total": "12.00 GiB", "free": "8.36 GiB"}, "the card was not full"),
        ({"requested": "355.43 GiB", "total": "79.32 GiB", "free": "18.06 GiB"}, "larger than the whole card"),
        ({"requested": "6056239117.41 GiB", "total": "44.56 GiB", "free": "40.30 GiB"}, "shape has gone wrong"),
        ({"requested": "2.00 MiB", "total": "255.98 GiB", "free": "244.65 GiB", "allowed": "1.05 GiB"}, "a limit of"),
    ],
)
def test_sums_that_do_not_add_up_are_said(sizes, words):
    remarks = diagnose(read(message_of("2.5", sizes))).reading.account.remarks
    assert any(words in remark for remark in remarks), remarks
