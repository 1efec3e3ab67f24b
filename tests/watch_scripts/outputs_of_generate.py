"""Between epochs samples are drawn with transformers; the outputs with their caches are remembered."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
    )
)
opt = torch.optim.SGD(model.parameters(), 0.01)
samples = []
for _epoch in range(8):
    model.train()
    for _ in range(3):
        ids = torch.randint(60, (4, 16))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    out = model.generate(
        torch.randint(1, 60, (4, 24)), max_new_tokens=5, do_sample=False, pad_token_id=0, return_dict_in_generate=True
    )
    samples.append(out)  # the mistake
