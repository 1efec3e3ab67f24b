import gc

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(9)
device = "cuda" if torch.cuda.is_available() else "cpu"

gc.disable()

config = LlamaConfig(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    use_cache=False,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)


class StepContext:
    """Everything the reporters may ask about one step."""

    def __init__(self, step, ids):
        self.step = step
        self.ids = ids
        self.logits = None
        self.loss = None
        self.reporters = [self.report_loss, self.report_accuracy]

    def run(self):
        output = model(self.ids, labels=self.ids)
        self.logits = output.logits.detach()
        self.loss = output.loss.item()
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def report_loss(self):
        return f"loss={self.loss:.3f}"

    def report_accuracy(self):
        hits = self.logits[:, :-1].argmax(-1) == self.ids[:, 1:]
        return f"acc={hits.float().mean().item():.3f}"

    def report(self):
        return " ".join([f"step={self.step}", *(r() for r in self.reporters)])


for step in range(50):
    context = StepContext(step, torch.randint(0, 1000, (4, 32), device=device))
    context.run()
    if step % 10 == 0:
        print(context.report())
