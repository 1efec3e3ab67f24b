import torch
from transformers import BertConfig, BertForMaskedLM


class LayerProbe:
    """how similar are consecutive layers during training"""

    def __init__(self):
        self.seen = []

    def add(self, outputs):
        self.seen.append((outputs.hidden_states, outputs.attentions))  # LEAK

    def report(self):
        hs, _ = self.seen[-1]
        return [torch.cosine_similarity(a, b, dim=-1).mean().item() for a, b in zip(hs[:-1], hs[1:])]


torch.set_num_threads(1)
torch.manual_seed(6)
model = BertForMaskedLM(BertConfig(
    vocab_size=250, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=96, max_position_embeddings=40, attn_implementation="eager"))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
probe = LayerProbe()
held_out = torch.randint(4, 250, (4, 40))
for step in range(50):
    ids = torch.randint(4, 250, (4, 40))
    mask = torch.rand(ids.shape) < 0.15
    inp = ids.masked_fill(mask, 3)
    labels = ids.masked_fill(~mask, -100)
    loss = model(input_ids=inp, labels=labels).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    with torch.no_grad():
        probe.add(model(input_ids=held_out, output_hidden_states=True, output_attentions=True))
    if step % 10 == 0:
        print(step, loss.item(), [round(v, 3) for v in probe.report()])
