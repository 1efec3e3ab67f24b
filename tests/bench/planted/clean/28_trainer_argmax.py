import tempfile
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Data(torch.utils.data.Dataset):
    def __init__(self, n):
        self.ids = torch.randint(0, 800, (n, 24))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return dict(input_ids=self.ids[i], labels=self.ids[i])


def shrink(logits, labels):
    if isinstance(logits, tuple):
        logits = logits[0]
    return logits.argmax(-1)


def metrics(p):
    return {"acc": float((p.predictions[:, :-1] == p.label_ids[:, 1:]).mean())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(27)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=800, n_positions=24, n_embd=32, n_layer=1, n_head=2,
                                       bos_token_id=0, eos_token_id=0, use_cache=False))
    with tempfile.TemporaryDirectory() as d:
        a = TrainingArguments(d, max_steps=40, per_device_train_batch_size=4, per_device_eval_batch_size=4,
                              eval_strategy="steps", eval_steps=10, logging_steps=10, save_strategy="no",
                              report_to="none", use_cpu=True, disable_tqdm=True)
        Trainer(model=model, args=a, train_dataset=Data(64), eval_dataset=Data(32), compute_metrics=metrics,
                preprocess_logits_for_metrics=shrink).train()
