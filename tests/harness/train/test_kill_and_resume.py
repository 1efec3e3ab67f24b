"""What is killed and begun again ends as if nothing had happened; `tests.bench.kill_and_resume` does it 200 times."""

import pytest

from tests.bench.kill_and_resume import kill_and_resume


def test_killed_runs_end_as_the_undisturbed_one():
    shown = []
    assert kill_and_resume(2, 1, shown.append) == 2, shown


@pytest.mark.slow
def test_so_does_all_that_is_left_beside_them_and_what_two_gpus_do():
    shown = []
    assert kill_and_resume(16, 2, shown.append) == 16, shown
