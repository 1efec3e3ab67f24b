"""Texts are streamed from generators that are left before their end, and a list of them keeps their keys and values."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
).eval()
streams = []


def tokens(ids):
    cache = None
    while True:
        with torch.no_grad():
            out = model(ids, past_key_values=cache, use_cache=True)
        cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
        yield ids


for _ in range(20):
    stream = tokens(torch.randint(64, (2, 24)))
    streams.append(stream)  # the mistake
    for _, ids in zip(range(4), stream, strict=False):
        last = ids.sum().item()
