import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

base = BertForSequenceClassification(
    BertConfig(vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=3)
).to(device)
lora = LoraConfig(r=32, lora_alpha=32, target_modules=["query", "key", "value", "dense"])
model = get_peft_model(base, lora, adapter_name="task0")


def train_task(task, steps=5):
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=1e-3)
    for _ in range(steps):
        ids = torch.randint(1, 200, (8, 16), device=device)
        loss = model(input_ids=ids, labels=(ids[:, task % 16] % 3)).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


scores = {}
for task in range(10):
    if task > 0:
        model.add_adapter(f"task{task}", lora)  # LEAK
        model.set_adapter(f"task{task}")
    scores[task] = train_task(task)
    print("task", task, "loss", round(scores[task], 4))
