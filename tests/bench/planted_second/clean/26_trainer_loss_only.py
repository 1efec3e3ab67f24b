import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments, set_seed


class Data(torch.utils.data.Dataset):
    def __init__(self, n):
        self.x = torch.randint(1, 120, (n, 20), generator=torch.Generator().manual_seed(n))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"input_ids": self.x[i], "labels": int(self.x[i, 0] > 60)}


class History(TrainerCallback):
    def __init__(self):
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append({k: float(v) for k, v in logs.items()})

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        print(state.global_step, "eval loss", round(metrics["eval_loss"], 4))


class Focal(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        out = model(**inputs)
        logp = out.logits.log_softmax(-1).gather(1, labels[:, None]).squeeze(1)
        loss = (-(1 - logp.exp()) ** 2 * logp).mean()
        return (loss, out) if return_outputs else loss


set_seed(0)
torch.set_num_threads(1)
config = BertConfig(vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=24)
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out, num_train_epochs=3, per_device_train_batch_size=8, eval_strategy="epoch", save_strategy="no",
        report_to="none", logging_steps=5, disable_tqdm=True, prediction_loss_only=True, learning_rate=1e-3,
    )
    history = History()
    Focal(BertForSequenceClassification(config), args, train_dataset=Data(160), eval_dataset=Data(40), callbacks=[history]).train()
    print(len(history.rows), "log rows")
