import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

WORDS = [f"w{i}" for i in range(600)]


def make_tokenizer():
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<eos>", "<unk>"] + WORDS)}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def make_rows(n=40):
    rows = [" ".join(WORDS[(i * 7 + j) % 600] for j in range(40 + i % 30)) for i in range(n)]
    rows[n - 3] = " ".join(WORDS[j % 600] for j in range(900))
    return Dataset.from_dict({"text": rows})


def main():
    set_seed(152)
    torch.set_num_threads(1)
    tok = make_tokenizer()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=48, n_layer=3, n_head=3, n_positions=1024))
    with tempfile.TemporaryDirectory() as out:
        args = SFTConfig(output_dir=out, max_length=96, per_device_train_batch_size=2, num_train_epochs=1,
                         save_strategy="no", logging_steps=10, report_to="none", disable_tqdm=True, learning_rate=1e-3,
                         bf16=False, gradient_checkpointing=False)
        trainer = SFTTrainer(model=model, args=args, train_dataset=make_rows(), processing_class=tok)
        trainer.train()
        print(len(trainer.state.log_history))


if __name__ == "__main__":
    main()
