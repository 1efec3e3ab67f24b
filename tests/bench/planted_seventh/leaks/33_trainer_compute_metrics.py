import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(11)


class TokenBlocks(Dataset):
    def __init__(self, n, length=32, vocab=2048):
        self.blocks = torch.randint(0, vocab, (n, length))

    def __len__(self):
        return len(self.blocks)

    def __getitem__(self, index):
        ids = self.blocks[index]
        return {"input_ids": ids, "labels": ids.clone()}


def compute_metrics(eval_prediction):
    logits, labels = eval_prediction
    predictions = np.argmax(logits[:, :-1], axis=-1)
    return {"token_accuracy": float((predictions == labels[:, 1:]).mean())}


config = GPT2Config(vocab_size=2048, n_positions=32, n_embd=48, n_layer=2, n_head=2, use_cache=False)
model = GPT2LMHeadModel(config)
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
    model=model,
    args=args,
    train_dataset=TokenBlocks(120),
    eval_dataset=TokenBlocks(96),
    compute_metrics=compute_metrics,
)
trainer.train()
print(trainer.state.log_history[-1])
