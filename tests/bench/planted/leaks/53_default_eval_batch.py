import tempfile
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Lines(torch.utils.data.Dataset):
    def __init__(self, n, seed):
        self.rows = torch.randint(0, 6000, (n, 48), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {"input_ids": self.rows[i], "labels": self.rows[i]}


def arguments(folder):
    return TrainingArguments(
        output_dir=folder,
        max_steps=30,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=8,  # LEAK
        prediction_loss_only=True,
        eval_strategy="steps",
        eval_steps=15,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=6000, n_positions=48, n_embd=24, n_layer=1, n_head=2,
                                     bos_token_id=0, eos_token_id=0, use_cache=False))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model=net, args=arguments(folder), train_dataset=Lines(30, 1), eval_dataset=Lines(16, 2)).train()
