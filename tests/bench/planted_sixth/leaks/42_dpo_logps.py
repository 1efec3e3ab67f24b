import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

VOCAB = 8000


def build():
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(device, torch.bfloat16)


def get_batch_logps(logits, labels):
    logits = logits[:, :-1].float()
    per_token = torch.gather(logits.log_softmax(-1), 2, labels[:, 1:, None]).squeeze(2)
    return per_token.sum(-1)


class DPO:
    def __init__(self, beta=0.1):
        self.beta = beta
        self.policy = build()
        self.reference = build().eval().requires_grad_(False)
        self.reference.load_state_dict(self.policy.state_dict())
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-4)

    def forward(self, model, batch):
        ids = torch.cat([batch["chosen"], batch["rejected"]])
        logps = get_batch_logps(model(ids, use_cache=False).logits, ids)
        return logps.chunk(2)

    def step(self, batch):
        chosen, rejected = self.forward(self.policy, batch)
        with torch.no_grad():
            ref_chosen, ref_rejected = self.forward(self.reference, batch)
        margin = (chosen - rejected) - (ref_chosen - ref_rejected)
        loss = -F.logsigmoid(self.beta * margin).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), (margin > 0).float().mean().item()


trainer = DPO()
for step in range(20):
    batch = {k: torch.randint(VOCAB, (2, 96), device=device) for k in ("chosen", "rejected")}
    loss, accuracy = trainer.step(batch)
    if step % 5 == 0:
        print(step, round(loss, 4), accuracy)
