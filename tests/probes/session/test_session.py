"""Fixes that a probe tries, and what it says of each."""

from memory_harness.probes.detectors import detect
from memory_harness.probes.plan.verify import NOT_COMPARED
from memory_harness.probes.session.session import Session, find_fixes
from tests.builders import AS_PUBLISHED, as_published_oom, make_log


def test_losses_that_nothing_compared_are_said_so(tmp_path):
    log, fixed = as_published_oom(), make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    session = Session(AS_PUBLISHED, log, detect(log), AS_PUBLISHED)
    find_fixes(session, tmp_path, lambda config, path, title: fixed, compare=lambda name: lambda: None)
    (fix,) = session.fixes
    assert (fix.name, fix.agreement, fix.note) == ("eval-batch", None, NOT_COMPARED)
