import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(56)
torch.set_num_threads(1)
VOCAB = 4000


class Texts(Dataset):
    def __init__(self, n, seed):
        self.ids = torch.randint(VOCAB, (n, 96), generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


def small_llama():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, use_cache=False
    )
    return LlamaForCausalLM(config)


def main():
    args = TrainingArguments(
        output_dir="out",
        max_steps=45,
        per_device_train_batch_size=1,
        learning_rate=1e-3,
        eval_strategy="steps",
        eval_steps=15,
        prediction_loss_only=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(small_llama(), args, train_dataset=Texts(100, 1), eval_dataset=Texts(24, 2))
    trainer.train()


main()
