import random

import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class ChatServer:
    def __init__(self, model):
        self.model = model
        self.sessions = {}

    @torch.no_grad()
    def turn(self, user, ids, n_new=6):
        cache = self.sessions.get(user)
        if cache is None:
            cache = DynamicCache(config=self.model.config)
        answer = []
        for _ in range(n_new):
            out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            ids = out.logits[:, -1:].argmax(-1)
            answer.append(ids.item())
        self.sessions[user] = cache  # LEAK
        return answer


def main():
    cfg = GPT2Config(vocab_size=300, n_embd=128, n_layer=3, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=0)
    server = ChatServer(GPT2LMHeadModel(cfg).to(device).eval())
    for request in range(90):
        # nearly everybody asks one question and never comes back
        user = f"user-{request}" if random.random() < 0.9 else "user-0"
        prompt = torch.randint(1, 300, (1, random.randint(16, 24)), device=device)
        if user == "user-0" and request > 60:
            continue
        answer = server.turn(user, prompt)
        if request % 30 == 0:
            print(request, user, answer)


if __name__ == "__main__":
    main()
