import torch
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification

MAX_LEN = 384


class Sentences(Dataset):
    def __init__(self, n=80):
        g = torch.Generator().manual_seed(0)
        self.rows = [torch.randint(5, 200, (int(torch.randint(8, 30, (1,), generator=g)),), generator=g)
                     for _ in range(n)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        r = self.rows[i]
        return r, int(r[0] > 100)


class Collator:
    def __init__(self, pad_id=0, padding="longest", max_length=MAX_LEN):
        self.pad_id, self.padding, self.max_length = pad_id, padding, max_length

    def __call__(self, items):
        width = self.max_length if self.padding == "max_length" else max(len(r) for r, _ in items)
        ids = torch.full((len(items), width), self.pad_id)
        for k, (r, _) in enumerate(items):
            ids[k, : len(r)] = r
        return {"input_ids": ids, "attention_mask": ids.ne(self.pad_id).long(),
                "labels": torch.tensor([y for _, y in items])}


torch.set_num_threads(1)
torch.manual_seed(0)
collate = Collator(padding="max_length")  # LEAK
loader = DataLoader(Sentences(), batch_size=2, shuffle=True, collate_fn=collate)
model = BertForSequenceClassification(BertConfig(
    vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
    intermediate_size=64, max_position_embeddings=MAX_LEN))
opt = torch.optim.AdamW(model.parameters(), lr=5e-4)
for step, batch in enumerate(loader):
    loss = model(**batch).loss
    loss.backward()
    opt.step()
    opt.zero_grad()
    if step % 10 == 0:
        print(step, loss.item())
