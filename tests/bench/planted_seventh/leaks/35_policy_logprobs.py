import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(13)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH, BATCH = 8192, 40, 4

config = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    use_cache=False,
)
policy = LlamaForCausalLM(config).to(device=device, dtype=torch.bfloat16)
optimizer = torch.optim.SGD(policy.parameters(), lr=1e-2)


def token_logprobs(logits, ids, temperature=0.9):
    logits = logits[:, :-1].float() / temperature
    logps = torch.log_softmax(logits, dim=-1)
    return logps.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)


def policy_loss(ids, advantages, old_logps):
    logps = token_logprobs(policy(ids).logits, ids)
    ratio = torch.exp(logps - old_logps)
    clipped = ratio.clamp(0.8, 1.2)
    advantages = advantages.unsqueeze(1)
    return -torch.min(ratio * advantages, clipped * advantages).mean()


for step in range(24):
    ids = torch.randint(0, VOCAB, (BATCH, LENGTH), device=device)
    advantages = torch.randn(BATCH, device=device)
    old_logps = torch.full((BATCH, LENGTH - 1), -9.0, device=device)
    loss = policy_loss(ids, advantages, old_logps)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if step % 8 == 7:
        print(step, round(loss.item(), 4))
