"""TRL's SFTTrainer with an adapter."""

import tempfile

from datasets import Dataset
from digest import show
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer
from words import tokenizer

set_seed(0)
config = LlamaConfig(
    vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64,
)  # fmt: skip
data = Dataset.from_dict({"text": ["a b c d e", "b c d", "e f g a b c", "g f e"] * 4})
with tempfile.TemporaryDirectory() as folder:
    arguments = SFTConfig(
        folder, per_device_train_batch_size=2, max_steps=6, logging_steps=2, report_to="none", disable_tqdm=True,
        use_cpu=True, max_length=32, bf16=False, seed=0, dataset_num_proc=None,
    )  # fmt: skip
    trainer = SFTTrainer(
        LlamaForCausalLM(config), arguments, train_dataset=data, processing_class=tokenizer(),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    for entry in trainer.state.log_history:
        print({key: value for key, value in entry.items() if key in ("loss", "grad_norm", "step")})
show(trainer.model)
