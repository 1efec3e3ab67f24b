"""peft: one adapter after another is loaded into a model that nothing trains, and each is deleted."""

import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn


def base():
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8))


torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    get_peft_model(base(), LoraConfig(r=16, target_modules=["0", "2"])).save_pretrained(folder)
    model = PeftModel.from_pretrained(base(), folder, adapter_name="first").eval()
    inputs = torch.randn(64, 64)
    for number in range(8):
        name = f"adapter{number}"
        model.load_adapter(folder, adapter_name=name)
        model.set_adapter(name)
        with torch.no_grad():
            scores = [model(part).mean().item() for part in inputs.split(16)]
        model.set_adapter("first")
        model.delete_adapter(name)
