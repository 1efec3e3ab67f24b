"""A loop small enough to watch: what a user's callback keeps is all that grows."""

import torch

from memory_harness.configs.cards import find_card
from memory_harness.harness.devices.simulated import SimulatedDevice
from memory_harness.harness.log.records import BatchShape, Phase, SurvivorRecord
from memory_harness.harness.observe.recorder import PhaseRecorder

BATCH = BatchShape(1, 4, (4,), 4)


class Loop:
    """A training loop of nothing but a linear layer, recorded as a real one is; `step` is the user's part."""

    def __init__(self, computes=True, device=None):
        self.device = device or SimulatedDevice(find_card("t4"), 2**30, computes=computes)
        self.records = []
        self.recorder = PhaseRecorder(self.device, self.records.append)
        with self.device.active():
            self.model = torch.nn.Linear(256, 256, device=self.device.torch_device)

    def batch(self):
        return torch.ones(256, 256, device=self.device.torch_device)

    def run(self, step, num_steps=20):
        with self.device.active():
            for _ in range(num_steps):
                self.recorder.step += 1
                with self.recorder.phase(Phase.FORWARD):
                    loss = self.model(self.batch()).square().sum()
                step(self, loss)
                with self.recorder.phase(Phase.OPTIMIZER):
                    self.model.zero_grad()
                loss = None
                self.recorder.end_step([BATCH], None, None, 1e-3, 0.0)
        return [record for record in self.records if isinstance(record, SurvivorRecord)]
