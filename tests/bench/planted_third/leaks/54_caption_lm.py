import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (DataCollatorForLanguageModeling, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Trainer,
                          TrainingArguments, set_seed)


def tokenizer():
    words = "<pad> <unk> red green blue big small box ball on under the a is".split()
    t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", unk_token="<unk>", model_max_length=256)


def captions(n):
    colours, things = ["red", "green", "blue"], ["box", "ball"]
    rows = []
    for i in range(n):
        one = f"the {colours[i % 3]} {things[i % 2]} is on a small {things[(i + 1) % 2]}"
        rows.append(" ".join([one] * (1 + i % 3)))
    return Dataset.from_dict({"caption": rows})


def main():
    set_seed(54)
    torch.set_num_threads(1)
    tok = tokenizer()
    data = captions(48).map(
        lambda r: tok(r["caption"], truncation=True, padding="max_length", max_length=256),
        batched=True, remove_columns=["caption"],
    )
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok), n_embd=64, n_layer=2, n_head=4, n_positions=256))
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(out, per_device_train_batch_size=4, max_steps=5, save_strategy="no", report_to="none",
                                 disable_tqdm=True, logging_steps=4)
        collator = DataCollatorForLanguageModeling(tok, mlm=False)
        Trainer(model, args, data_collator=collator, train_dataset=data).train()


if __name__ == "__main__":
    main()
