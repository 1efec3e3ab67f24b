import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(30)


class TokenBlocks(Dataset):
    def __init__(self, n, length=32, vocab=1024):
        self.blocks = torch.randint(0, vocab, (n, length))

    def __len__(self):
        return len(self.blocks)

    def __getitem__(self, index):
        return {"input_ids": self.blocks[index], "labels": self.blocks[index].clone()}


def keep_predictions(logits, labels):
    if isinstance(logits, tuple):
        logits = logits[0]
    return logits.argmax(dim=-1)


def compute_metrics(eval_prediction):
    predictions, labels = eval_prediction
    return {"token_accuracy": float((predictions[:, :-1] == labels[:, 1:]).mean())}


config = GPT2Config(vocab_size=1024, n_positions=32, n_embd=48, n_layer=2, n_head=2, use_cache=False)
args = TrainingArguments(
    output_dir="lm_run",
    per_device_train_batch_size=4,
    per_device_eval_batch_size=4,
    max_steps=30,
    eval_strategy="steps",
    eval_steps=10,
    logging_steps=10,
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
)
trainer = Trainer(
    model=GPT2LMHeadModel(config),
    args=args,
    train_dataset=TokenBlocks(120),
    eval_dataset=TokenBlocks(48),
    compute_metrics=compute_metrics,
    preprocess_logits_for_metrics=keep_predictions,
)
trainer.train()
print(trainer.state.log_history[-1])
