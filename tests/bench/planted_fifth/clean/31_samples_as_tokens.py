import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

torch.manual_seed(131)
torch.set_num_threads(1)


class Lines(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, i):
        ids = (torch.arange(24) * (i % 7 + 1) + i) % 120
        return {"input_ids": ids, "labels": ids}


class SampleCallback(TrainerCallback):
    def __init__(self, prompt):
        self.prompt, self.samples = prompt, []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % 8 == 0:
            model.eval()
            out = model.generate(self.prompt, max_new_tokens=12, do_sample=True, pad_token_id=0)
            self.samples.append(out[0].tolist())
            model.train()


config = GPT2Config(vocab_size=120, n_positions=64, n_embd=64, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=None)
callback = SampleCallback(torch.randint(1, 120, (4, 8)))
args = TrainingArguments(
    output_dir="out", max_steps=64, per_device_train_batch_size=8, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True
)
Trainer(GPT2LMHeadModel(config), args, train_dataset=Lines(), callbacks=[callback]).train()
print(len(callback.samples), callback.samples[-1])
