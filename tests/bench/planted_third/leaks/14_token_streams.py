import torch
from transformers import GPT2Config, GPT2LMHeadModel


def stream(model, ids, limit):
    """Yields one token id at a time."""
    cache = None
    inp = ids
    with torch.no_grad():
        for _ in range(limit):
            out = model(inp, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            inp = out.logits[:, -1:].argmax(-1)
            yield inp.item()


class Session:
    def __init__(self, model):
        self.model = model
        self.streams = []

    def ask(self, ids, stop=7):
        gen = stream(self.model, ids, limit=64)
        self.streams.append(gen)
        words = []
        for tok in gen:
            words.append(tok)
            if tok % stop == 0 or len(words) == 8:
                break
        return words


def main():
    torch.manual_seed(99)
    torch.set_num_threads(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=500, n_embd=64, n_layer=3, n_head=4, n_positions=160)).eval()
    session = Session(model)
    for turn in range(50):
        prompt = torch.randint(0, 500, (1, 80))
        words = session.ask(prompt)
        if turn % 10 == 0:
            print(turn, words, "streams:", len(session.streams))


if __name__ == "__main__":
    main()
