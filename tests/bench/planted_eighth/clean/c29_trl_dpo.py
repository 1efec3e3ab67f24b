"""TRL DPO, nothing unusual."""
import tempfile
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer

set_seed(29)
words = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(500)]
tk = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
tk.pre_tokenizer = Whitespace()
tok = PreTrainedTokenizerFast(tokenizer_object=tk, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
g = torch.Generator().manual_seed(1)


def some(n):
    return " ".join(f"w{int(t)}" for t in torch.randint(0, 500, (n,), generator=g))


rows = [{"prompt": some(8), "chosen": " " + some(int(torch.randint(6, 20, (1,), generator=g))),
         "rejected": " " + some(10)} for _ in range(120)]


def lm():
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(words), hidden_size=48, intermediate_size=96,
                                        num_hidden_layers=2, num_attention_heads=2, pad_token_id=0, eos_token_id=1))


with tempfile.TemporaryDirectory() as tmp:
    cfg = DPOConfig(tmp, max_steps=40, per_device_train_batch_size=4, report_to=[], use_cpu=True, bf16=False,
                    save_strategy="no", logging_steps=20, disable_tqdm=True, max_length=48)
    t = DPOTrainer(lm(), lm(), args=cfg, train_dataset=Dataset.from_list(rows), processing_class=tok)
    t.train()
    print("done", t.state.global_step)
