import contextlib

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(143)
torch.set_num_threads(1)


@contextlib.contextmanager
def evaluating(model):
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was)


def data(n, length=96):
    g = torch.Generator().manual_seed(n)
    for _ in range(n):
        yield (torch.randint(0, 180, (4, 1), generator=g) + torch.arange(length)) % 180


def main():
    cfg = GPT2Config(vocab_size=180, n_embd=64, n_layer=6, n_head=4, n_positions=128, use_cache=False,
                     resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(cfg)
    model.gradient_checkpointing_enable()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for epoch in range(3):
        for ids in data(5):
            loss = model(input_ids=ids, labels=ids).loss
            opt.zero_grad()
            loss.backward()
            opt.step()
        with evaluating(model) as m:
            val = [m(input_ids=ids, labels=ids).loss.item() for ids in data(2)]
        print(epoch, round(loss.item(), 3), round(sum(val) / len(val), 3))


main()
