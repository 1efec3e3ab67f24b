import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

torch.manual_seed(31)
torch.set_num_threads(1)


class Lines(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, i):
        ids = (torch.arange(24) * (i % 7 + 1) + i) % 120
        return {"input_ids": ids, "labels": ids}


class SampleCallback(TrainerCallback):
    def __init__(self, prompt, every=4):
        self.prompt, self.every = prompt, every
        self.samples = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every:
            return
        model.eval()
        out = model.generate(
            self.prompt, max_new_tokens=20, do_sample=True, pad_token_id=0, return_dict_in_generate=True
        )
        model.train()
        self.samples.append((state.global_step, out))

    def on_train_end(self, args, state, control, **kwargs):
        step, out = self.samples[-1]
        print(step, out.sequences[0].tolist())


config = GPT2Config(vocab_size=120, n_positions=64, n_embd=64, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=None)
callback = SampleCallback(torch.randint(1, 120, (4, 8)))
args = TrainingArguments(
    output_dir="out", max_steps=64, per_device_train_batch_size=8, report_to="none", save_strategy="no",
    logging_steps=32, disable_tqdm=True, use_cpu=True,
)
Trainer(GPT2LMHeadModel(config), args, train_dataset=Lines(), callbacks=[callback]).train()
