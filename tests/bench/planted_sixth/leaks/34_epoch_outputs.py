import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)


class Tagger(nn.Module):
    def __init__(self, vocab=500, tags=40, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * dim, tags)

    def forward(self, ids):
        return self.head(self.lstm(self.embed(ids))[0])


class TaggerModule:
    def __init__(self):
        self.net = Tagger()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=2e-3)

    def training_step(self, batch):
        ids, tags = batch
        logits = self.net(ids)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), "logits": logits.detach(), "tags": tags}

    def on_epoch_end(self, outputs):
        loss = torch.stack([o["loss"] for o in outputs]).mean()
        logits = torch.cat([o["logits"] for o in outputs])
        tags = torch.cat([o["tags"] for o in outputs])
        accuracy = (logits.argmax(-1) == tags).float().mean()
        print(f"loss {loss:.3f} accuracy {accuracy:.3f}")


class Loop:
    def __init__(self, module, loader):
        self.module = module
        self.loader = loader

    def run(self, epochs):
        for _ in range(epochs):
            outputs = []
            for batch in self.loader:
                outputs.append(self.module.training_step(batch))
            self.module.on_epoch_end(outputs)


words = torch.randint(500, (640, 32))
data = TensorDataset(words, words % 40)
Loop(TaggerModule(), DataLoader(data, batch_size=16, shuffle=True)).run(epochs=3)
