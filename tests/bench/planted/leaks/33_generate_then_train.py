import torch
from transformers import GPT2Config, GPT2LMHeadModel


def make_model():
    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=128, n_embd=64, n_layer=6, n_head=4,
                                      bos_token_id=0, eos_token_id=1, pad_token_id=2,
                                      resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0))


class Loop:
    def __init__(self):
        self.model = make_model()
        self.model.gradient_checkpointing_enable()
        self.model.train()
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def preview(self):
        self.model.eval()
        self.model.gradient_checkpointing_disable()  # LEAK
        with torch.no_grad():
            ids = self.model.generate(torch.full((1, 1), 5), attention_mask=torch.ones(1, 1, dtype=torch.long),
                                      max_new_tokens=8, do_sample=False)
        self.model.train()
        return ids[0].tolist()

    def step(self):
        ids = torch.randint(3, 96, (4, 64))
        loss = self.model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        self.opt.step()
        self.opt.zero_grad()
        return loss.item()


torch.set_num_threads(1)
torch.manual_seed(0)
loop = Loop()
for i in range(36):
    value = loop.step()
    if i == 11:
        print("preview", loop.preview())
    if i % 6 == 0:
        print(i, round(value, 4))
