import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(129)
torch.set_num_threads(1)


class SharedPrompt:
    def __init__(self, model, prompt):
        self.model, self.length = model, prompt.size(1)
        self.cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(prompt, past_key_values=self.cache, use_cache=True)

    def __enter__(self):
        return self.cache

    def __exit__(self, *exc):
        self.cache.crop(self.length - self.cache.get_seq_length())


@torch.no_grad()
def turn(model, shared, ids, new_tokens=6):
    reply = []
    with shared as cache:
        out = model(ids, past_key_values=cache, use_cache=True)
        for _ in range(new_tokens):
            token = out.logits[:, -1:].argmax(-1)
            reply.append(token.item())
            out = model(token, past_key_values=cache, use_cache=True)
    return reply


config = LlamaConfig(
    vocab_size=300, hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=512,
)
model = LlamaForCausalLM(config).eval()
shared = SharedPrompt(model, torch.randint(300, (1, 48)))
replies = [turn(model, shared, torch.randint(300, (1, 10))) for _ in range(40)]
print(len(replies), replies[-1], shared.cache.get_seq_length())
