import random
import torch
from transformers import GPT2Config, GPT2LMHeadModel


class WordTokenizer:
    def __init__(self, words):
        self.index = {w: i + 3 for i, w in enumerate(sorted(words))}

    def encode(self, text, max_length=None):
        ids = [self.index[w] for w in text.split()]
        return ids[:max_length] if max_length else ids

    def __len__(self):
        return len(self.index) + 3


WORDS = [f"w{i}" for i in range(90)]


def examples(n):
    rng = random.Random(4)
    for i in range(n):
        q = " ".join(rng.choices(WORDS, k=rng.randint(5, 12)))
        a = " ".join(rng.choices(WORDS, k=rng.randint(300, 420) if i % 17 == 16 else rng.randint(8, 24)))
        yield q, a


def build_features(tok, pairs, max_length=48):
    rows = []
    for q, a in pairs:
        left = tok.encode(q, max_length=max_length // 2)
        right = tok.encode(a)  # LEAK
        rows.append(torch.tensor(left + [1] + right + [2]))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(4)
    tok = WordTokenizer(WORDS)
    rows = build_features(tok, examples(60))
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_positions=512, n_embd=48, n_layer=2, n_head=4,
                                       bos_token_id=0, eos_token_id=2))
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for i, row in enumerate(rows):
        ids = row[None]
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        if i % 10 == 0:
            print(i, ids.shape[1], loss.item())
