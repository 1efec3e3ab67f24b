import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(133)
torch.set_num_threads(1)


class Server:
    def __init__(self, model):
        self.model, self.sessions = model, {}

    @torch.no_grad()
    def say(self, session, tokens):
        cache = self.sessions.setdefault(session, DynamicCache())
        out = self.model(tokens, past_key_values=cache, use_cache=True)
        return out.logits[:, -1].argmax(-1, keepdim=True)

    def close(self, session):
        del self.sessions[session]


model = LlamaForCausalLM(
    LlamaConfig(vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
)
server = Server(model)
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for it in range(45):
    turn = torch.randint(100, (6, 10))
    dialogue = [turn]
    model.eval()
    for _ in range(3):
        turn = torch.cat([server.say(it, turn), torch.randint(100, (6, 5))], 1)
        dialogue.append(turn)
    server.close(it)
    model.train()
    ids = torch.cat(dialogue, 1)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if it % 10 == 0:
        print(it, loss.item(), len(server.sessions))
