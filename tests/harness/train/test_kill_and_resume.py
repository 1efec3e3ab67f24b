"""A run that is killed and resumed ends as if nothing had happened; `tests.bench.kill_and_resume` does it 50 times."""

from tests.bench.kill_and_resume import kill_and_resume


def test_killed_runs_end_as_the_undisturbed_one():
    shown = []
    assert kill_and_resume(4, 1, shown.append) == 4, shown
