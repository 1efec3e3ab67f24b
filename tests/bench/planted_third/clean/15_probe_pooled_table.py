import torch
from transformers import BertConfig, BertModel

torch.manual_seed(115)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
encoder = BertModel(
    BertConfig(vocab_size=200, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
               attn_implementation="eager")
).to(device).eval()

N, B = 40, 8
table = torch.empty(5, N * B, 64, device=device)
labels = torch.empty(N * B, dtype=torch.long, device=device)
entropy = torch.zeros(4, device=device)
with torch.no_grad():
    for i in range(N):
        ids = torch.randint(1, 200, (B, 32), device=device)
        out = encoder(ids, output_hidden_states=True, output_attentions=True)
        rows = slice(i * B, (i + 1) * B)
        for layer, h in enumerate(out.hidden_states):
            table[layer, rows] = h[:, 0]
        labels[rows] = ids[:, 1:5].sum(1) % 3
        entropy += torch.stack([-(a * (a + 1e-9).log()).sum(-1).mean() for a in out.attentions])
    del out, h

print("attention entropy by layer", (entropy / N).tolist())
for layer in range(5):
    probe = torch.nn.Linear(64, 3).to(device)
    opt = torch.optim.Adam(probe.parameters(), 1e-2)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(probe(table[layer]), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
    print("layer", layer, round(loss.item(), 3))
