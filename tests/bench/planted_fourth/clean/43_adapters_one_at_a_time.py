import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(143)
torch.set_num_threads(1)


def lora(r):
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=["query", "value"], task_type="SEQ_CLS")


def rows(n):
    ids = torch.randint(5, 150, (n, 16))
    return ids, (ids[:, 0] > ids[:, 1]).long()


def train(model, steps=4):
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for _ in range(steps):
        ids, y = rows(10)
        loss = nn.functional.cross_entropy(model(input_ids=ids).logits, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


config = BertConfig(
    vocab_size=150, hidden_size=96, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
    max_position_embeddings=32, num_labels=2,
)
model = get_peft_model(BertForSequenceClassification(config), lora(16), adapter_name="round0")
scores = {}
for r in range(12):
    name = f"round{r}"
    if r:
        model.add_adapter(name, lora(16))
        model.set_adapter(name)
        model.delete_adapter(f"round{r - 1}")
    scores[name] = train(model)
print(min(scores, key=scores.get), list(model.peft_config))
