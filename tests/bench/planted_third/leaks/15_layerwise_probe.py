import torch
from transformers import BertConfig, BertModel

torch.manual_seed(15)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

encoder = BertModel(
    BertConfig(vocab_size=200, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
               attn_implementation="eager")
).to(device).eval()


def corpus(n_batches):
    for _ in range(n_batches):
        ids = torch.randint(1, 200, (8, 32))
        yield ids, (ids[:, 1:5].sum(1) % 3)


collected, labels = [], []
with torch.no_grad():
    for ids, y in corpus(40):
        out = encoder(ids.to(device), output_hidden_states=True, output_attentions=True)
        collected.append((out.hidden_states, out.attentions))
        labels.append(y.to(device))

labels = torch.cat(labels)
entropy = torch.zeros(4, device=device)
for _, att in collected:
    entropy += torch.stack([-(a * (a + 1e-9).log()).sum(-1).mean() for a in att])
print("attention entropy by layer", (entropy / len(collected)).tolist())

for layer in range(5):
    feats = torch.cat([h[layer][:, 0] for h, _ in collected])
    probe = torch.nn.Linear(64, 3).to(device)
    opt = torch.optim.LBFGS(probe.parameters(), max_iter=10)

    def closure():
        opt.zero_grad()
        loss = torch.nn.functional.cross_entropy(probe(feats), labels)
        loss.backward()
        return loss

    opt.step(closure)
    acc = (probe(feats).argmax(1) == labels).float().mean().item()
    print("layer", layer, f"{acc:.3f}")
