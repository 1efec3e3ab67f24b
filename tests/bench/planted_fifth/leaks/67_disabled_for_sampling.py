import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(67)
torch.set_num_threads(1)
config = GPT2Config(
    vocab_size=64, n_positions=256, n_embd=96, n_layer=8, n_head=4, bos_token_id=0, eos_token_id=None,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)
model = GPT2LMHeadModel(config)
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
opt = torch.optim.SGD(model.parameters(), lr=0.1)


def rows(n=2, length=180):
    return (torch.randint(64, (n, 1)) + torch.arange(length)) % 64


@torch.no_grad()
def sample(prompt):
    model.eval()
    model.gradient_checkpointing_disable()
    out = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    model.train()
    return out[0, -8:].tolist()


def train_step():
    ids = rows()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss.item()


model.train()
for step in range(36):
    value = train_step()
    if step % 12 == 11:
        print(step, value, sample(rows(1, 10)))
