import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(128)
torch.set_num_threads(1)
ALPHABET = "abcdefghijklmnopqrstuvwxyz ."


def decode(ids):
    return "".join(ALPHABET[i % len(ALPHABET)] for i in ids)


@torch.no_grad()
def sample(model, prompt, n=10):
    model.eval()
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=n, do_sample=False, pad_token_id=0,
        eos_token_id=None,
    )
    model.train()
    return decode(out[0].tolist())


config = LlamaConfig(
    vocab_size=28, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=None,
)
model = LlamaForCausalLM(config)
opt = torch.optim.AdamW(model.parameters(), 3e-3)
prompt = torch.tensor([[3, 4, 5, 6]])
texts = [sample(model, prompt)]
for step in range(40):
    ids = (torch.randint(28, (8, 1)) + torch.arange(24)) % 28
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 8 == 7:
        texts.append(sample(model, prompt))
print(loss.item(), texts)
