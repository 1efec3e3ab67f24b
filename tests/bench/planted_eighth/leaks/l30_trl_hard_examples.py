"""TRL's SFTTrainer with a subclass that keeps logits of hard batches, by step, 'to look at later'."""
import tempfile
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

set_seed(30)
words = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(1200)]
tk = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
tk.pre_tokenizer = Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tk, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


class HardExamples(SFTTrainer):
    hard = {}

    def compute_loss(self, model, inputs, return_outputs=False, **kw):
        loss, out = super().compute_loss(model, inputs, return_outputs=True, **kw)
        if loss.item() > 1.0:
            self.hard[self.state.global_step] = out.logits.detach()  # LEAK
        return (loss, out) if return_outputs else loss


g = torch.Generator().manual_seed(1)
rows = [" ".join(f"w{int(t)}" for t in torch.randint(0, 1200, (24,), generator=g)) for _ in range(200)]
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), hidden_size=48, intermediate_size=96,
                                     num_hidden_layers=2, num_attention_heads=2, pad_token_id=0, eos_token_id=1))
with tempfile.TemporaryDirectory() as tmp:
    cfg = SFTConfig(tmp, max_steps=50, per_device_train_batch_size=4, report_to=[], use_cpu=True, bf16=False,
                    save_strategy="no", logging_steps=25, disable_tqdm=True, max_length=32)
    t = HardExamples(model, cfg, train_dataset=Dataset.from_dict({"text": rows}), processing_class=tokenizer)
    t.train()
    print("hard batches", len(t.hard))
