import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Tiny matrices are multiplied faster by one thread, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
