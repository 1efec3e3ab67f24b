import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

model = LlamaForCausalLM(
    LlamaConfig(vocab_size=200, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=None)
).to(device)
model.generation_config.eos_token_id = None
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
transcript = []

for it in range(40):
    prompt = torch.randint(2, 200, (6, 8), device=device)
    model.eval()
    with torch.no_grad():
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=True,
                             return_dict_in_generate=True)
    tokens = out.sequences
    transcript.append(tokens[0].tolist())
    del out

    model.train()
    reward = (tokens[:, 8:] < 100).float().mean(1)
    adv = reward - reward.mean()
    logp = model(input_ids=tokens, use_cache=False).logits[:, 7:-1].log_softmax(-1).gather(2, tokens[:, 8:, None])[..., 0]
    loss = -(adv * logp.sum(1)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 10 == 0:
        print(it, reward.mean().item(), transcript[-1][-6:])
