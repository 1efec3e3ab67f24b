import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(151)
torch.set_num_threads(1)
config = GPT2Config(
    vocab_size=64, n_positions=256, n_embd=96, n_layer=8, n_head=4, bos_token_id=0, eos_token_id=None,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
)
model = GPT2LMHeadModel(config)
settings = {"use_reentrant": False}
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
opt = torch.optim.SGD(model.parameters(), lr=0.1)


@torch.no_grad()
def sample(prompt):
    model.eval()
    model.gradient_checkpointing_disable()
    out = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    model.train()
    return out[0, -8:].tolist()


model.train()
for step in range(30):
    ids = (torch.randint(64, (1, 1)) + torch.arange(120)) % 64
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 9:
        print(step, loss.item(), sample(ids[:, :10]))
