from collections import OrderedDict

import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)


class Sessions:
    def __init__(self, limit=6):
        self.limit = limit
        self.caches = OrderedDict()

    def get(self, user, make):
        if user not in self.caches:
            self.caches[user] = make()
        self.caches.move_to_end(user)
        while len(self.caches) > self.limit:
            self.caches.popitem(last=False)
        return self.caches[user]


config = GPT2Config(vocab_size=150, n_embd=64, n_layer=2, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).eval()
sessions = Sessions()

with torch.no_grad():
    for request in range(120):
        user = request % 40
        cache = sessions.get(user, lambda: DynamicCache(config=config))
        ids = torch.randint(1, 150, (1, 12))
        for _ in range(4):
            out = model(input_ids=ids, past_key_values=cache, use_cache=True)
            ids = out.logits[:, -1:].argmax(-1)
        if request % 40 == 0:
            print(request, "sessions", len(sessions.caches), "length", cache.get_seq_length())
