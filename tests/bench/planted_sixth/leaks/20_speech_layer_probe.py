import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"


class SpeechEncoder(nn.Module):
    def __init__(self, dim=64, layers=3):
        super().__init__()
        self.frontend = nn.Conv1d(1, dim, 20, stride=40)
        self.layers = nn.ModuleList(
            [nn.TransformerEncoderLayer(dim, 4, 128, dropout=0.0, batch_first=True) for _ in range(layers)]
        )

    def extract_features(self, wav, output_layer=None):
        x = self.frontend(wav.unsqueeze(1)).transpose(1, 2)
        layer_results = [x]
        for layer in self.layers[:output_layer]:
            x = layer(x)
            layer_results.append(x)
        return x, layer_results


class Probe(nn.Module):
    def __init__(self, n_layers, dim=64, speakers=20):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers))
        self.head = nn.Linear(dim, speakers)

    def forward(self, layer_results):
        w = self.weights.softmax(0)
        pooled = sum(w[i] * h.mean(1) for i, h in enumerate(layer_results))
        return self.head(pooled)


def utterances(n, batch=6, samples=4000):
    for _ in range(n):
        yield torch.randn(batch, samples, device=device), torch.randint(0, 20, (batch,), device=device)


def layer_norms(reps):
    n_layers = len(reps[0])
    return [torch.stack([rep[i].norm(dim=-1).mean() for rep in reps]).mean().item() for i in range(n_layers)]


def main():
    encoder = SpeechEncoder().to(device).eval().requires_grad_(False)
    probe = Probe(n_layers=4).to(device)
    optimizer = torch.optim.Adam(probe.parameters(), lr=1e-2)
    reps = []
    for step, (wav, speaker) in enumerate(utterances(48)):
        with torch.no_grad():
            _, layer_results = encoder.extract_features(wav)
        reps.append(layer_results)
        loss = F.cross_entropy(probe(layer_results), speaker)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 12 == 0:
            print(f"step {step} probe loss {loss.item():.4f}")
    print("mean norm per layer", [round(v, 3) for v in layer_norms(reps)])


if __name__ == "__main__":
    main()
