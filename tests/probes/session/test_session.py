"""Fixes that a probe tries, and what it says of each."""

import shutil
from pathlib import Path

from memory_harness.probes.detectors import detect
from memory_harness.probes.plan.verify import NOT_COMPARED
from memory_harness.probes.session.session import Session, find_fixes, session_of_folder
from tests.builders import AS_PUBLISHED, as_published_oom, make_log

MEASURED = Path(__file__).parents[2] / "bench" / "results" / "h100_t4_probe"


def test_losses_that_nothing_compared_are_said_so(tmp_path):
    log, fixed = as_published_oom(), make_log(AS_PUBLISHED.with_fields(eval_batch_size=1))
    session = Session(AS_PUBLISHED, log, detect(log), AS_PUBLISHED)
    find_fixes(session, tmp_path, lambda config, path, title: fixed, compare=lambda name: lambda: None)
    (fix,) = session.fixes
    assert (fix.name, fix.agreement, fix.note) == ("eval-batch", None, NOT_COMPARED)


def test_a_folder_that_is_read_stays_as_it_is(tmp_path):
    """Also where its logs do not say how the losses compare: that is found out, and not written down."""
    folder = Path(shutil.copytree(MEASURED, tmp_path / "probe"))
    (fix,) = session_of_folder(folder).fixes
    assert fix.agreement.agrees
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in MEASURED.iterdir()
    }
