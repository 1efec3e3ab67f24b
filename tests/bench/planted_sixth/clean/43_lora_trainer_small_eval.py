import tempfile

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.set_num_threads(1)
torch.manual_seed(0)

VOCAB, LENGTH = 3000, 48


class Instructions(Dataset):
    def __init__(self, size):
        self.ids = torch.randint(VOCAB, (size, LENGTH))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


config = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    use_cache=False,
)
model = get_peft_model(
    LlamaForCausalLM(config), LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
)
with tempfile.TemporaryDirectory() as out:
    args = TrainingArguments(
        output_dir=out,
        max_steps=24,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=2e-4,
        eval_strategy="steps",
        eval_steps=8,
        prediction_loss_only=True,
        save_strategy="no",
        logging_steps=8,
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model=model, args=args, train_dataset=Instructions(96), eval_dataset=Instructions(24)).train()
