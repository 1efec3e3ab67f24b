import tempfile

import torch
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments, set_seed

set_seed(3)
torch.set_num_threads(1)


class Tokens(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        self.ids = torch.randint(1, 200, (n, 32), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i] % 5}


config = BertConfig(
    vocab_size=200, hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=32, num_labels=5, output_hidden_states=True,
)
model = BertForTokenClassification(config)
with tempfile.TemporaryDirectory() as out:
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=out, max_steps=15, per_device_train_batch_size=8, per_device_eval_batch_size=8,
            save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=5,
        ),
        train_dataset=Tokens(120, 0),
    )
    trainer.train()
    result = trainer.predict(Tokens(480, 1))  # LEAK
    logits = result.predictions[0] if isinstance(result.predictions, tuple) else result.predictions
    print("accuracy", (logits.argmax(-1) == result.label_ids).mean())
