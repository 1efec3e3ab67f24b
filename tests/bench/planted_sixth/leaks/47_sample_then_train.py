import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB, LENGTH = 256, 128


class OnlineTrainer:
    def __init__(self):
        config = GPT2Config(
            vocab_size=VOCAB,
            n_positions=LENGTH,
            n_embd=64,
            n_layer=6,
            n_head=4,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=0,
        )
        self.model = GPT2LMHeadModel(config).to(device)
        self.model.gradient_checkpointing_enable()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)

    @torch.no_grad()
    def generate_samples(self, prompt):
        self.model.eval()
        self.model.gradient_checkpointing_disable()
        tokens = self.model.generate(prompt, max_new_tokens=8, do_sample=True, use_cache=True)
        self.model.train()
        return tokens[:, prompt.size(1) :]

    def training_step(self, ids):
        loss = self.model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def train(self, steps, sample_every):
        self.model.train()
        for step in range(1, steps + 1):
            ids = torch.randint(1, VOCAB, (4, LENGTH), device=device)
            loss = self.training_step(ids)
            if step % sample_every == 0:
                samples = self.generate_samples(ids[:2, :4])
                print(step, round(loss, 3), samples[0].tolist())


OnlineTrainer().train(steps=24, sample_every=10)
