"""A chat object that keeps transformers' cache of every turn between calls."""

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
).eval()


class Chat:
    def __init__(self):
        self.cache = DynamicCache()  # the mistake
        self.ids = torch.zeros(4, 0, dtype=torch.long)

    def say(self, ids):
        self.ids = torch.cat([self.ids, ids], 1)
        out = model.generate(self.ids, past_key_values=self.cache, max_new_tokens=4, do_sample=False, pad_token_id=0)
        self.ids = out
        return out


chat = Chat()
for _turn in range(12):
    chat.say(torch.randint(1, 60, (4, 40)))
