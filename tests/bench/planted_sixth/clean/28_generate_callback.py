import tempfile

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)


class Blocks(Dataset):
    def __init__(self, size):
        self.ids = torch.randint(1, 300, (size, 32))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


class SampleCallback(TrainerCallback):
    def __init__(self, prompts, every):
        self.prompts = prompts
        self.every = every
        self.samples = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every:
            return
        model.eval()
        with torch.no_grad():
            out = model.generate(
                self.prompts.to(model.device), max_new_tokens=8, do_sample=True, return_dict_in_generate=True
            )
        model.train()
        self.samples.append((state.global_step, out.sequences[0].tolist()))


config = GPT2Config(
    vocab_size=300, n_positions=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=None, pad_token_id=0
)
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out,
        max_steps=40,
        per_device_train_batch_size=4,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=20,
    )
    callback = SampleCallback(torch.randint(1, 300, (4, 8)), every=4)
    Trainer(model=GPT2LMHeadModel(config), args=args, train_dataset=Blocks(160), callbacks=[callback]).train()
    print(len(callback.samples), callback.samples[-1])
