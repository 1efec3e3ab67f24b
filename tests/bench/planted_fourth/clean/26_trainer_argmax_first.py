import torch
from datasets import Dataset
from transformers import DistilBertConfig, DistilBertForTokenClassification, Trainer, TrainingArguments

torch.manual_seed(126)
torch.set_num_threads(1)


def rows(n, length=24):
    ids = torch.randint(5, 200, (n, length))
    return Dataset.from_dict({
        "input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist(), "labels": (ids % 5).tolist(),
    })


def accuracy(p):
    return {"accuracy": float((p.predictions == p.label_ids).mean())}


def main():
    config = DistilBertConfig(
        vocab_size=200, dim=64, hidden_dim=128, n_layers=2, n_heads=4, max_position_embeddings=32, num_labels=5
    )
    args = TrainingArguments(
        output_dir="tags", per_device_train_batch_size=8, per_device_eval_batch_size=8, max_steps=40,
        eval_strategy="steps", eval_steps=20, logging_steps=20, save_strategy="no", learning_rate=1e-3,
        report_to=[], use_cpu=True, disable_tqdm=True,
    )
    trainer = Trainer(
        model=DistilBertForTokenClassification(config), args=args, train_dataset=rows(160), eval_dataset=rows(96),
        compute_metrics=accuracy, preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    trainer.train()
    print([round(e["eval_accuracy"], 3) for e in trainer.state.log_history if "eval_accuracy" in e])


main()
