from collections import defaultdict
import copy

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH, PAIRS = 1024, 24, 3


def build_policy():
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    return LlamaForCausalLM(config).to(device)


class PreferenceTrainer:
    def __init__(self, policy, beta=0.1):
        self.policy = policy
        self.reference = copy.deepcopy(policy).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
        self.beta = beta
        self.stored_metrics = defaultdict(list)

    def sequence_logps(self, model, ids):
        logits = model(ids).logits[:, :-1]
        logps = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        return logps.sum(-1), logits

    def store_metrics(self, metrics):
        for key, value in metrics.items():
            self.stored_metrics[key].append(value)

    def training_step(self, chosen, rejected):
        pc, chosen_logits = self.sequence_logps(self.policy, chosen)
        pr, rejected_logits = self.sequence_logps(self.policy, rejected)
        with torch.no_grad():
            rc, _ = self.sequence_logps(self.reference, chosen)
            rr, _ = self.sequence_logps(self.reference, rejected)
        loss = -F.logsigmoid(self.beta * ((pc - rc) - (pr - rr))).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.store_metrics(
            {
                "loss": loss.item(),
                "logits/chosen": chosen_logits.detach(),
                "logits/rejected": rejected_logits.detach(),
            }
        )
        return loss.item()


trainer = PreferenceTrainer(build_policy())
for step in range(40):
    chosen = torch.randint(0, VOCAB, (PAIRS, LENGTH), device=device)
    rejected = torch.randint(0, VOCAB, (PAIRS, LENGTH), device=device)
    loss = trainer.training_step(chosen, rejected)
    if step % 10 == 9:
        m = trainer.stored_metrics
        print(step, f"loss {loss:.4f}", f"logits/chosen {m['logits/chosen'][-1].mean().item():.4f}")
