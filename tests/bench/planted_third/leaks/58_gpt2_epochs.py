import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(58)
torch.set_num_threads(1)


def data(n, length=96):
    g = torch.Generator().manual_seed(n)
    for _ in range(n):
        s = torch.randint(0, 180, (4, 1), generator=g)
        yield (s + torch.arange(length)) % 180


class Loop:
    def __init__(self):
        cfg = GPT2Config(vocab_size=180, n_embd=64, n_layer=6, n_head=4, n_positions=128, use_cache=False,
                         resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        self.model = GPT2LMHeadModel(cfg)
        self.model.gradient_checkpointing_enable()
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.history = []

    def run(self, epochs):
        self.model.train()
        for epoch in range(epochs):
            for ids in data(5):
                loss = self.model(input_ids=ids, labels=ids).loss
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
            self.history.append((epoch, round(loss.item(), 3), round(self.validate(), 3)))
        return self.history

    def validate(self):
        self.model.eval()
        losses = []
        with torch.no_grad():
            for ids in data(2):
                losses.append(self.model(input_ids=ids, labels=ids).loss.item())
        return sum(losses) / len(losses)


print(Loop().run(3))
