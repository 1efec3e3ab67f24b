"""Gradient checkpointing is put off for sampling, and nobody puts it on again."""
import torch
from transformers import LlamaConfig, LlamaForCausalLM, logging

logging.set_verbosity_error()
torch.manual_seed(25)
lm = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=256, num_hidden_layers=8,
                                  num_attention_heads=4, max_position_embeddings=256,
                                  bos_token_id=1, eos_token_id=2, pad_token_id=0))
lm.gradient_checkpointing_enable({"use_reentrant": False})
lm.train()
opt = torch.optim.AdamW(lm.parameters(), 1e-3)


def show(prompt):
    lm.eval()
    lm.gradient_checkpointing_disable()  # LEAK
    with torch.no_grad():
        text = lm.generate(prompt, max_new_tokens=8, do_sample=False)
    lm.train()
    return text[0, -8:].tolist()


for step in range(1, 31):
    ids = torch.randint(3, 64, (4, 128))
    loss = lm(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
    if step == 12:
        print("sample", show(ids[:1, :8]))
    if step % 10 == 0:
        print(step, f"{loss.item():.3f}")
