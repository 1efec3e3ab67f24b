import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(20)
torch.set_num_threads(1)


class ActivationMemory:
    """Keeps the cache of a prompt that all conversations share."""

    def __init__(self, model, prompt):
        self.model = model
        self.cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(prompt, past_key_values=self.cache, use_cache=True)

    def get(self):
        return self.cache


class Chat:
    def __init__(self, model, memory):
        self.model, self.memory = model, memory

    @torch.no_grad()
    def turn(self, ids, new_tokens=6):
        cache = self.memory.get()
        out = self.model(ids, past_key_values=cache, use_cache=True)
        reply = []
        for _ in range(new_tokens):
            token = out.logits[:, -1:].argmax(-1)
            reply.append(token)
            out = self.model(token, past_key_values=cache, use_cache=True)
        return torch.cat(reply, 1)


config = LlamaConfig(
    vocab_size=300, hidden_size=256, intermediate_size=256, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096,
)
model = LlamaForCausalLM(config).eval()
memory = ActivationMemory(model, torch.randint(300, (1, 24)))
chat = Chat(model, memory)
for question in range(40):
    ids = torch.randint(300, (1, 10))
    answer = chat.turn(ids)
    if question % 10 == 0:
        print(question, answer[0].tolist())
