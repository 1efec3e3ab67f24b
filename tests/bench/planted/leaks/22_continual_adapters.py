import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification


def lora(r=16):
    return LoraConfig(r=r, lora_alpha=32, target_modules=["query", "value", "dense"], task_type="SEQ_CLS")


def task_batch(task, n=8):
    ids = torch.randint(5, 300, (n, 24))
    labels = (ids[:, task % 24] > 150).long()
    return ids, labels


def run_task(model, task, steps):
    name = f"task{task}"
    if name not in model.peft_config:
        model.add_adapter(name, lora())  # LEAK
    model.set_adapter(name)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        ids, labels = task_batch(task)
        loss = model(input_ids=ids, labels=labels).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.item()


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = BertForSequenceClassification(BertConfig(
        vocab_size=300, hidden_size=96, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=192, max_position_embeddings=64, num_labels=2))
    model = get_peft_model(base, lora(), adapter_name="task0")
    for task in range(16):
        final = run_task(model, task, steps=3)
        print("task", task, "loss", round(final, 4))


main()
