import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)

config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
model = LlamaForCausalLM(config).eval()
cache = DynamicCache(config=config)


@torch.no_grad()
def perplexity(doc):
    """Perplexity of a document, in windows of 16 tokens so that long ones fit."""
    nll, count = 0.0, 0
    for start in range(0, doc.shape[1] - 1, 16):
        window = doc[:, start : start + 16]
        out = model(input_ids=window, past_key_values=cache, use_cache=True)  # LEAK
        logp = out.logits[:, :-1].log_softmax(-1)
        nll -= logp.gather(2, window[:, 1:, None]).sum().item()
        count += window[:, 1:].numel()
    return 2.718 ** (nll / count)


scores = []
for i in range(40):
    doc = torch.randint(3, 256, (4, 33))
    scores.append(perplexity(doc))
    if i % 10 == 9:
        print(f"{i + 1} documents, mean ppl {sum(scores) / len(scores):.1f}")
