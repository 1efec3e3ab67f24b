import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


class PackedStream(IterableDataset):
    def __init__(self, documents, block=48, eos=0):
        self.documents = documents
        self.block = block
        self.eos = eos

    def tokenise(self, index):
        generator = torch.Generator().manual_seed(index)
        length = int(torch.randint(10, 150, (), generator=generator))
        return torch.randint(1, 500, (length,), generator=generator).tolist()

    def __iter__(self):
        buffer = []
        for index in range(self.documents):
            buffer.extend(self.tokenise(index))
            buffer.append(self.eos)
            while len(buffer) >= self.block:
                yield torch.tensor(buffer[: self.block])
                buffer = buffer[self.block :]


config = GPT2Config(vocab_size=500, n_positions=48, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
model = GPT2LMHeadModel(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
losses = []
for ids in DataLoader(PackedStream(160), batch_size=4):
    ids = ids.to(device)
    loss = model(ids, labels=ids, use_cache=False).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(len(losses), round(losses[-1], 3))
