import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM


class RewardScorer:
    """frozen language model that scores completions"""

    def __init__(self, lm):
        self.lm = lm.eval().requires_grad_(False)
        self.cache = DynamicCache()

    @torch.no_grad()
    def __call__(self, ids):
        out = self.lm(input_ids=ids, past_key_values=self.cache, use_cache=True)  # LEAK
        lp = out.logits[:, :-1].log_softmax(-1)
        return lp.gather(-1, ids[:, 1:, None]).mean((1, 2))


def build_lm():
    cfg = LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                      num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=8192)
    return LlamaForCausalLM(cfg)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(128, 48)
        self.rnn = nn.GRU(48, 48, batch_first=True)
        self.head = nn.Linear(48, 128)

    def forward(self, ids):
        return self.head(self.rnn(self.emb(ids))[0])


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(9)
    scorer = RewardScorer(build_lm())
    policy = Policy()
    opt = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for it in range(50):
        start = torch.randint(0, 128, (4, 16))
        dist = torch.distributions.Categorical(logits=policy(start))
        nxt = dist.sample()
        reward = scorer(nxt)
        adv = (reward - reward.mean())[:, None]
        loss = -(dist.log_prob(nxt) * adv).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if it % 10 == 0:
            print(it, reward.mean().item())
