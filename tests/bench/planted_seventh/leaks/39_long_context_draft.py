import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(17)
device = "cuda" if torch.cuda.is_available() else "cpu"

CONTEXT = 384


class DraftModelRun:
    def __init__(self):
        config = LlamaConfig(
            vocab_size=200,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=CONTEXT,
            use_cache=False,
            attn_implementation="eager",
        )
        self.model = LlamaForCausalLM(config).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-4)

    def step(self, ids):
        loss = self.model(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def documents(n):
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        yield torch.randint(0, 200, (1, CONTEXT), generator=generator).to(device)


run = DraftModelRun()
for step, ids in enumerate(documents(20)):
    loss = run.step(ids)
    if step % 5 == 4:
        print(step, round(loss, 4))
