import itertools
from collections import defaultdict

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(33)
torch.set_num_threads(1)


class Server:
    def __init__(self, model):
        self.model = model
        self.sessions = defaultdict(DynamicCache)
        self.ids = itertools.count()

    def open(self):
        return next(self.ids)

    @torch.no_grad()
    def say(self, session, tokens):
        out = self.model(tokens, past_key_values=self.sessions[session], use_cache=True)
        return out.logits[:, -1].argmax(-1, keepdim=True)


config = LlamaConfig(
    vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128
)
model = LlamaForCausalLM(config)
server = Server(model)
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for it in range(50):
    session, turn = server.open(), torch.randint(100, (6, 10))
    dialogue = [turn]
    model.eval()
    for _ in range(3):
        reply = server.say(session, turn)
        turn = torch.cat([reply, torch.randint(100, (6, 5))], 1)
        dialogue.append(turn)
    model.train()
    ids = torch.cat(dialogue, 1)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 10 == 0:
        print(it, loss.item(), "open sessions", len(server.sessions))
