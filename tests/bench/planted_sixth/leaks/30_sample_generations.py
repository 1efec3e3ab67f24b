from dataclasses import dataclass, field

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass
class ModelOutput:
    step: int
    tokens: list
    meta: dict = field(default_factory=dict)


class Session:
    def __init__(self, model):
        self.model = model
        self.history = []

    def sample(self, step, prompt):
        self.model.eval()
        out = self.model.generate(
            prompt,
            max_new_tokens=12,
            do_sample=True,
            pad_token_id=0,
            return_dict_in_generate=True,
        )
        self.model.train()
        result = ModelOutput(step, out.sequences.tolist(), {"hf_output": out})
        self.history.append(result)
        return result.tokens[0]


config = LlamaConfig(
    vocab_size=300,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=None,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
session = Session(model)
prompts = torch.randint(2, 300, (4, 24), device=device)

for step in range(40):
    ids = torch.randint(2, 300, (4, 32), device=device)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 3 == 0:
        text = session.sample(step, prompts)
        print(step, round(loss.item(), 3), text[-6:])

print(f"{len(session.history)} samples, last at step {session.history[-1].step}")
