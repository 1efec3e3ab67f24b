"""Trainer subclass: keeps the last layer's states for a nearest-neighbour probe which is run at the end."""
import tempfile
import torch
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

set_seed(2)


class BankTrainer(Trainer):
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        self.bank = {}

    def compute_loss(self, model, inputs, return_outputs=False, **kw):
        out = model(**inputs, output_hidden_states=True)
        self.bank[self.state.global_step] = (out.hidden_states[-1], inputs["labels"])  # LEAK
        return (out.loss, out) if return_outputs else out.loss


def pack(rows):
    return {"input_ids": torch.stack([r[0] for r in rows]), "labels": torch.stack([r[1] for r in rows])}


ids = torch.randint(3, 300, (640, 32))
data = TensorDataset(ids, (ids[:, 0] > 150).long())
model = BertForSequenceClassification(BertConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2,
                                                 num_attention_heads=2, intermediate_size=96, num_labels=2,
                                                 max_position_embeddings=40))
with tempfile.TemporaryDirectory() as tmp:
    t = BankTrainer(model, TrainingArguments(tmp, per_device_train_batch_size=8, max_steps=70, report_to=[],
                                             save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=35,
                                             remove_unused_columns=False), pack, data)
    t.train()
    feats = torch.cat([h[:, 0].detach() for h, _ in t.bank.values()])
    print("bank", tuple(feats.shape))
