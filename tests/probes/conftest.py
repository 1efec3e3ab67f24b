import gc

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Tiny matrices are multiplied faster by one thread, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def young_heap():
    """Whoever asks the collector who holds a tensor looks at what was made since; the rest takes most of its time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
