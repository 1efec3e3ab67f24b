import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

torch.set_num_threads(1)
torch.manual_seed(6)
device = "cuda" if torch.cuda.is_available() else "cpu"


def model_init():
    config = GPT2Config(vocab_size=500, n_positions=32, n_embd=96, n_layer=2, n_head=4, num_labels=3, pad_token_id=0)
    return GPT2ForSequenceClassification(config).to(device)


class Trial:
    def __init__(self, number, lr):
        self.number = number
        self.lr = lr
        self.objective = None
        self.model = model_init()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)

    def run(self, steps=5):
        self.model.train()
        for _ in range(steps):
            ids = torch.randint(1, 500, (4, 24), device=device)
            labels = torch.randint(0, 3, (4,), device=device)
            loss = self.model(input_ids=ids, labels=labels).loss
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.objective = self.evaluate()
        return self.objective

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        ids = torch.randint(1, 500, (4, 24), device=device)
        labels = torch.randint(0, 3, (4,), device=device)
        return self.model(input_ids=ids, labels=labels).loss.item()


class Study:
    def __init__(self):
        self.trials = []

    def optimize(self, n_trials):
        for number in range(n_trials):
            trial = Trial(number, lr=10 ** (-5 + 3 * torch.rand(()).item()))
            trial.run()
            self.trials.append(trial)
            print(f"trial {number} lr={trial.lr:.2e} loss={trial.objective:.3f}")

    @property
    def best_trial(self):
        return min(self.trials, key=lambda t: t.objective)


study = Study()
study.optimize(10)
print("best lr", study.best_trial.lr)
