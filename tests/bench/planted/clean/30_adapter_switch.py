import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification


def cfg():
    return LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], task_type="SEQ_CLS")


torch.set_num_threads(1)
torch.manual_seed(29)
base = BertForSequenceClassification(BertConfig(
    vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=128, max_position_embeddings=32, num_labels=2))
model = get_peft_model(base, cfg(), adapter_name="keep")
scores = {}
for task in range(12):
    name = f"t{task}"
    model.add_adapter(name, cfg())
    model.set_adapter(name)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(4):
        ids = torch.randint(5, 200, (8, 16))
        loss = model(input_ids=ids, labels=(ids[:, task] > 100).long()).loss
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    scores[name] = loss.item()
    opt.zero_grad(set_to_none=True)
    del opt, loss
    model.set_adapter("keep")
    model.delete_adapter(name)
print({k: round(v, 3) for k, v in scores.items()}, list(model.peft_config))
