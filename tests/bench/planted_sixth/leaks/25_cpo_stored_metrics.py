from collections import defaultdict

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


def sequence_logps(logits, labels):
    logps = torch.log_softmax(logits[:, :-1], dim=-1)
    return torch.gather(logps, 2, labels[:, 1:].unsqueeze(2)).squeeze(2).sum(-1)


class CPOTrainer:
    def __init__(self, model, beta=0.1, logging_steps=100):
        self.model = model
        self.beta = beta
        self.logging_steps = logging_steps
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self._stored_metrics = defaultdict(list)

    def store_metrics(self, metrics):
        for key, value in metrics.items():
            self._stored_metrics[key].append(value)

    def log(self, step):
        means = {k: torch.stack(v).mean().item() for k, v in self._stored_metrics.items()}
        self._stored_metrics.clear()
        print(step, means)

    def get_batch_loss_metrics(self, batch):
        ids = torch.cat([batch["chosen"], batch["rejected"]])
        logits = self.model(ids, use_cache=False).logits
        n = batch["chosen"].size(0)
        logps = sequence_logps(logits, ids)
        nll_loss = F.cross_entropy(logits[:n, :-1].flatten(0, 1), ids[:n, 1:].flatten())
        margins = logps[:n] - logps[n:]
        loss = -F.logsigmoid(self.beta * margins).mean() + nll_loss
        metrics = {
            "rewards/margins": self.beta * margins.detach().mean(),
            "rewards/accuracies": (margins > 0).float().mean(),
            "nll_loss": nll_loss.detach(),
            "policy/entropy": torch.special.entr(logits.softmax(-1)).sum(-1).mean(),
        }
        return loss, metrics

    def train(self, batches):
        for step, batch in enumerate(batches, 1):
            loss, metrics = self.get_batch_loss_metrics(batch)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.store_metrics(metrics)
            if step % self.logging_steps == 0:
                self.log(step)


def preference_batches(steps, batch_size=2, length=24, vocab=512):
    for _ in range(steps):
        chosen = torch.randint(vocab, (batch_size, length), device=device)
        rejected = torch.randint(vocab, (batch_size, length), device=device)
        yield {"chosen": chosen, "rejected": rejected}


config = GPT2Config(vocab_size=512, n_positions=64, n_embd=64, n_layer=2, n_head=4)
trainer = CPOTrainer(GPT2LMHeadModel(config).to(device))
trainer.train(preference_batches(60))
