"""TRL's DPOTrainer, whose reference model is a second one."""

import tempfile

from datasets import Dataset
from digest import show
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, set_seed
from trl import DPOConfig, DPOTrainer
from words import tokenizer

set_seed(0)
config = LlamaConfig(
    vocab_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64,
)  # fmt: skip
rows = {"prompt": ["a b", "c d"] * 6, "chosen": ["c d e", "e f"] * 6, "rejected": ["g", "a a a a"] * 6}
with tempfile.TemporaryDirectory() as folder:
    arguments = DPOConfig(
        folder, per_device_train_batch_size=2, max_steps=4, logging_steps=1, report_to="none", disable_tqdm=True,
        use_cpu=True, max_length=32, bf16=False, seed=0,
    )  # fmt: skip
    model, reference = LlamaForCausalLM(config), LlamaForCausalLM(config)
    trainer = DPOTrainer(
        model, reference, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer()
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    for entry in trainer.state.log_history:
        print({key: value for key, value in entry.items() if key in ("loss", "grad_norm", "step")})
show(model)
