import torch
from transformers import GPT2Config, GPT2LMHeadModel


def setup():
    torch.set_num_threads(1)
    torch.manual_seed(13)
    cfg = GPT2Config(vocab_size=150, n_positions=64, n_embd=48, n_layer=2, n_head=2,
                     bos_token_id=0, eos_token_id=1, pad_token_id=2)
    return GPT2LMHeadModel(cfg)


@torch.no_grad()
def sample(model, prompt):
    model.eval()
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=True,
                         return_dict_in_generate=True)
    model.train()
    n_layers = len(out.past_key_values) if out.past_key_values is not None else 0
    return out.sequences[:, prompt.size(1):].tolist(), n_layers


model = setup()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
prompt = torch.randint(3, 150, (2, 6))
texts = []
for step in range(45):
    ids = torch.randint(3, 150, (4, 24))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 3 == 0:
        toks, n = sample(model, prompt)
        texts.append(toks)
    if step % 15 == 0:
        print(step, loss.item(), n, texts[-1][0][:5])
