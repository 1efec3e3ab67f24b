import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(36)
torch.set_num_threads(1)


def pool(n=240, length=16):
    ids = torch.randint(5, 150, (n, length))
    return ids, (ids[:, 0] > ids[:, 1]).long()


def lora():
    return LoraConfig(r=32, lora_alpha=32, target_modules=["query", "key", "value", "dense"], task_type="SEQ_CLS")


def uncertainty(model, ids):
    with torch.no_grad():
        p = torch.cat([model(input_ids=chunk).logits.softmax(-1) for chunk in ids.split(100)])
    return -(p * p.log()).sum(1)


config = BertConfig(
    vocab_size=150, hidden_size=96, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=192, max_position_embeddings=32, num_labels=2,
)
ids, labels = pool()
known = torch.arange(20)
model = get_peft_model(BertForSequenceClassification(config), lora(), adapter_name="round0")
for r in range(14):
    if r:
        model.add_adapter(f"round{r}", lora())
        model.set_adapter(f"round{r}")
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    model.train()
    for idx in known[torch.randperm(len(known))].split(10):
        loss = nn.functional.cross_entropy(model(input_ids=ids[idx]).logits, labels[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    model.eval()
    score = uncertainty(model, ids)
    score[known] = -1
    known = torch.cat([known, score.topk(5).indices])
    if r % 4 == 0:
        print("round", r, "labelled", len(known), "loss", round(loss.item(), 4))
