from collections import OrderedDict

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(112)
torch.set_num_threads(1)
cfg = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=4, max_position_embeddings=256)
model = LlamaForCausalLM(cfg).eval()


class PrefixStore:
    def __init__(self, model, limit=6):
        self.model, self.limit = model, limit
        self.entries = OrderedDict()

    def get(self, ids):
        key = tuple(ids[0].tolist())
        if key not in self.entries:
            while len(self.entries) >= self.limit:
                self.entries.popitem(last=False)
            out = self.model(ids, past_key_values=DynamicCache(config=self.model.config), use_cache=True, logits_to_keep=1)
            self.entries[key] = (out.past_key_values, out.logits[:, -1].argmax(-1))
        self.entries.move_to_end(key)
        return self.entries[key]


@torch.no_grad()
def answer(store, prompt, n=6):
    cache, nxt = store.get(prompt)
    words = [nxt]
    for _ in range(n - 1):
        out = store.model(words[-1][:, None], past_key_values=cache, use_cache=True)
        words.append(out.logits[:, -1].argmax(-1))
    cache.crop(1 - n)
    return torch.stack(words, 1)


store = PrefixStore(model)
system = torch.randint(0, 300, (1, 48))
for request in range(60):
    reply = answer(store, torch.cat([system, torch.randint(0, 300, (1, 16))], 1))
    if request % 20 == 0:
        print(request, reply[0].tolist(), len(store.entries))
