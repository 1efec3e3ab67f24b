"""How a file is shown: from where its reader knows it."""

import pytest

from memory_harness.configs.places import PARTS_FOLDER
from memory_harness.harness.log.source_lines import short_path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/usr/lib/python3/site-packages/transformers/trainer.py", "transformers/trainer.py"),
        # an environment inside the checkout holds libraries, not the project's files
        (f"{PARTS_FOLDER}/.venv/lib/python3.11/site-packages/peft/mapping.py", "peft/mapping.py"),
        (f"{PARTS_FOLDER}/harness/train/loop.py", "harness/train/loop.py"),
        (f"{PARTS_FOLDER}/tests/watch_scripts/helpers/metrics.py", "tests/watch_scripts/helpers/metrics.py"),
        ("/home/me/projects/mine/train.py", "projects/mine/train.py"),
    ],
)
def test_a_path_is_shown_short(path, shown):
    assert short_path(path) == shown
