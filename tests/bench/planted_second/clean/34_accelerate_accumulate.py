import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import get_linear_schedule_with_warmup

torch.manual_seed(0)
torch.set_num_threads(1)


def main():
    accelerator = Accelerator(gradient_accumulation_steps=2)
    x = torch.randn(320, 64)
    train = DataLoader(TensorDataset(x, x[:, :8].argmax(1)), batch_size=16, shuffle=True)
    val = DataLoader(TensorDataset(x[:96], x[:96, :8].argmax(1)), batch_size=32)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Dropout(0.1), nn.Linear(128, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = get_linear_schedule_with_warmup(optimizer, 5, 60)
    model, optimizer, train, val, scheduler = accelerator.prepare(model, optimizer, train, val, scheduler)
    for epoch in range(5):
        model.train()
        total_loss = 0
        for a, b in train:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(a), b)
                total_loss += loss.detach().float()
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        model.eval()
        predictions, references = [], []
        for a, b in val:
            with torch.no_grad():
                logits = model(a)
            p, r = accelerator.gather_for_metrics((logits.argmax(-1), b))
            predictions.append(p)
            references.append(r)
        acc = (torch.cat(predictions) == torch.cat(references)).float().mean().item()
        accelerator.print(epoch, total_loss.item() / len(train), acc)


main()
