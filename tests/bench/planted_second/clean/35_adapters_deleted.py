import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(0)
torch.set_num_threads(1)

base = BertForSequenceClassification(
    BertConfig(vocab_size=100, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, num_labels=2)
)
cfg = LoraConfig(r=16, lora_alpha=16, target_modules=["query", "value"])
model = get_peft_model(base, cfg, adapter_name="t0")
results = []
for task in range(10):
    name = f"t{task}"
    if task:
        model.add_adapter(name, cfg)
        model.set_adapter(name)
        model.delete_adapter(f"t{task - 1}")
    model.train()
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(6):
        ids = torch.randint(1, 100, (8, 12))
        loss = model(input_ids=ids, labels=ids[:, task] % 2).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
    results.append(loss.item())
    print(name, results[-1], list(model.peft_config))
