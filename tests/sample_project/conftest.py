import pytest
import torch
from own_loop import LENGTH, VOCABULARY, LanguageModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LanguageModel()


@pytest.fixture
def optimizer(model):
    return torch.optim.AdamW(model.parameters())


@pytest.fixture
def ids():
    return torch.randint(0, VOCABULARY, (2, LENGTH))
