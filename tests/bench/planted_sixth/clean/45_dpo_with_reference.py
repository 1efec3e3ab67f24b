import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB = 1000


def build():
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        use_cache=False,
    )
    return LlamaForCausalLM(config).to(device)


def logps(model, ids):
    logits = model(input_ids=ids).logits[:, :-1]
    return (logits.gather(2, ids[:, 1:, None]).squeeze(2) - logits.logsumexp(-1)).sum(-1)


policy, reference = build(), build().eval().requires_grad_(False)
reference.load_state_dict(policy.state_dict())
pairs = [torch.randint(VOCAB, (4, 32), device=device) for _ in range(24)]
with torch.no_grad():
    reference_logps = [logps(reference, ids) for ids in pairs]

optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
metrics = []
for epoch in range(2):
    for ids, ref in zip(pairs, reference_logps):
        ratio = logps(policy, ids) - ref
        chosen, rejected = ratio.chunk(2)
        loss = -F.logsigmoid(0.1 * (chosen - rejected)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        metrics.append({"loss": loss.item(), "margin": (chosen - rejected).mean().item()})
print(len(metrics), metrics[-1])
