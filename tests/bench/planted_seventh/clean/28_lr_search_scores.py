import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

torch.set_num_threads(1)
torch.manual_seed(36)
device = "cuda" if torch.cuda.is_available() else "cpu"


def model_init():
    config = GPT2Config(vocab_size=500, n_positions=32, n_embd=96, n_layer=2, n_head=4, num_labels=3, pad_token_id=0)
    return GPT2ForSequenceClassification(config).to(device)


def batch():
    ids = torch.randint(1, 500, (4, 24), device=device)
    return {"input_ids": ids, "labels": torch.randint(0, 3, (4,), device=device)}


def objective(lr, steps=5):
    model = model_init()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        loss = model(**batch()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        return model(**batch()).loss.item()


def main():
    results = []
    for number in range(10):
        lr = 10 ** (-5 + 3 * torch.rand(()).item())
        results.append({"number": number, "lr": lr, "loss": objective(lr)})
        print(results[-1])
    print("best", min(results, key=lambda r: r["loss"]))


if __name__ == "__main__":
    main()
