import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(32)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=256,
    hidden_size=96,
    intermediate_size=192,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
samples = {}


@torch.no_grad()
def sample(prompt):
    model.eval()
    result = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=8,
        do_sample=False,
        return_dict_in_generate=True,
    )
    model.train()
    return [bytes(row).decode("latin-1") for row in result.sequences[:, prompt.size(1) :].tolist()]


for step in range(40):
    ids = torch.randint(1, 256, (4, 32), device=device)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 4 == 3:
        samples[step] = sample(ids[:2, :24])
        print(step, round(loss.item(), 3), [len(text) for text in samples[step]])
