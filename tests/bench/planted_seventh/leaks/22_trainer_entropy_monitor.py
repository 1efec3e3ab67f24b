import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)


class RandomCorpus(Dataset):
    def __init__(self, n, length, vocab):
        self.ids = torch.randint(0, vocab, (n, length))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


class EntropyTrainer(Trainer):
    """Reports the mean token entropy of the run beside the loss."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.entropy_sum = 0.0
        self.entropy_count = 0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.loss
        logp = outputs.logits.log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1).mean()
        self.entropy_sum += entropy
        self.entropy_count += 1
        return (loss, outputs) if return_outputs else loss


def main():
    config = GPT2Config(vocab_size=512, n_positions=64, n_embd=64, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    args = TrainingArguments(
        output_dir="entropy_run",
        per_device_train_batch_size=4,
        max_steps=40,
        learning_rate=3e-4,
        logging_steps=20,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = EntropyTrainer(model=model, args=args, train_dataset=RandomCorpus(160, 32, 512))
    trainer.train()
    print("mean entropy", float(trainer.entropy_sum) / trainer.entropy_count)


if __name__ == "__main__":
    main()
