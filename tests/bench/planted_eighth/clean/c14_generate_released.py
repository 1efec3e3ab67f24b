import torch
from transformers import LlamaConfig, LlamaForCausalLM, logging

logging.set_verbosity_error()
torch.manual_seed(14)
model = LlamaForCausalLM(LlamaConfig(vocab_size=200, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
                                     num_attention_heads=4, max_position_embeddings=128,
                                     bos_token_id=1, eos_token_id=2, pad_token_id=0))
opt = torch.optim.AdamW(model.parameters(), 1e-3)
latest = {}
for step in range(48):
    ids = torch.randint(3, 200, (4, 32))
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 4 == 3:
        model.eval()
        latest["sample"] = model.generate(ids[:, :16], max_new_tokens=20, do_sample=False,
                                          return_dict_in_generate=True)
        model.train()
        print(step, f"{loss.item():.3f}", latest["sample"].sequences[0, -4:].tolist())
