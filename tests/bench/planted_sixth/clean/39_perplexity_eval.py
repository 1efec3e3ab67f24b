import math

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class Evaluator:
    def __init__(self, data, batch_size):
        self.data = data
        self.batch_size = batch_size
        self.history = []

    @torch.inference_mode()
    def __call__(self, model):
        model.eval()
        nll, tokens = 0.0, 0
        for ids in self.data.split(self.batch_size):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            for h, target in zip(hidden.split(32, dim=1), ids[:, 1:].split(32, dim=1)):
                logits = model.lm_head(h)
                nll += cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum").item()
            tokens += ids[:, 1:].numel()
        model.train()
        self.history.append(math.exp(nll / tokens))
        return self.history[-1]


config = LlamaConfig(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
evaluate = Evaluator(torch.randint(1000, (24, 96), device=device), batch_size=4)
for step in range(1, 31):
    ids = torch.randint(1000, (4, 96), device=device)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, round(evaluate(model), 1))
