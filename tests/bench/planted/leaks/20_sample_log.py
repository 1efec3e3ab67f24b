import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
config = GPT2Config(vocab_size=200, n_positions=96, n_embd=64, n_layer=2, n_head=2,
                    bos_token_id=0, eos_token_id=1, pad_token_id=2)
model = GPT2LMHeadModel(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
prompts = torch.randint(3, 200, (2, 8))

samples = []


def sample(step):
    model.eval()
    with torch.no_grad():
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=12,
            do_sample=True,
            return_dict_in_generate=True,
        )
    samples.append((step, out))  # LEAK
    model.train()
    return out.sequences[:, 8:].tolist()


for step in range(40):
    batch = torch.randint(3, 200, (4, 32))
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 2 == 0:
        text = sample(step)
    if step % 10 == 0:
        print(step, round(loss.item(), 3), text[0][:6])
print("collected", len(samples), "samples")
