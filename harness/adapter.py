"""The adapter in peft's own format: `adapter_model.safetensors` and `adapter_config.json`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from harness.devices.base import Device


def export_adapter(folder: Path, model: Any, base_model: str, device: Device) -> None:
    """Write the adapter so that `peft.PeftModel.from_pretrained(base, folder)` loads it: beside `folder`, then renamed.

    Args:
        folder: made, or replaced as a whole.
        model: with a peft adapter.
        base_model: what the configuration names as its base.
        device: of the model; nothing is written where it computes nothing.

    Raises:
        OSError: the folder cannot be written.
    """
    if not device.computes:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as partial:
        written = Path(partial, "adapter")
        model.peft_config["default"].base_model_name_or_path = base_model
        with device.on_host():
            # given its state, peft does not ask the model for all of it: that reads every 4-bit layer's constants back
            state = {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}
            model.save_pretrained(str(written), state_dict=state, save_embedding_layers=False)
        for file in written.iterdir():
            with file.open("rb") as content:
                os.fsync(content.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        written.rename(folder)
