import argparse
import os
import tempfile

import torch
from transformers import BertConfig, BertForMaskedLM


def batch(size=6, length=96, vocab=120):
    ids = torch.randint(4, vocab, (size, 1)) + torch.arange(length) % 3
    labels = ids.clone()
    masked = torch.rand(ids.shape) < 0.15
    labels[~masked] = -100
    return {"input_ids": ids.masked_fill(masked, 3), "labels": labels}


def build():
    model = BertForMaskedLM(
        BertConfig(vocab_size=128, hidden_size=64, num_hidden_layers=8, num_attention_heads=4, intermediate_size=256, max_position_embeddings=96)
    )
    model.gradient_checkpointing_enable()
    return model.train()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)

    folder = os.path.join(tempfile.mkdtemp(), "best")
    model = build()
    best = float("inf")
    lr = 0.05
    for r in range(args.rounds):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(args.steps):
            loss = model(**batch()).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print("round", r, "lr", lr, "loss", loss.item())
        if loss.item() < best:
            best = loss.item()
            model.save_pretrained(folder)
        # go on from the best one, with a smaller rate
        model = BertForMaskedLM.from_pretrained(folder).train()  # LEAK
        lr /= 2


main()
