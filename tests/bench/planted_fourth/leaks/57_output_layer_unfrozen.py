import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

VOCAB = 9000


def build():
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=128, n_layer=2, n_head=4, n_positions=32, use_cache=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
    )
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True,
        modules_to_save=["wte", "lm_head"],
    )
    return get_peft_model(GPT2LMHeadModel(config), lora)


def songs(n=100, length=16):
    first = torch.randint(VOCAB, (n, 1))
    ids = (first + 3 * torch.arange(length)) % VOCAB
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": ids.tolist()})


def main():
    torch.manual_seed(66)
    torch.set_num_threads(1)
    model = build()
    args = TrainingArguments(
        output_dir="songs", per_device_train_batch_size=2, max_steps=24, learning_rate=1e-3,
        logging_steps=12, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=args, train_dataset=songs())
    trainer.train()
    print([round(e["loss"], 3) for e in trainer.state.log_history if "loss" in e])


main()
