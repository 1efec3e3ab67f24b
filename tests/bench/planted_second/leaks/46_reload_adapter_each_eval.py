import os
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)


def gpt():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=150, n_embd=64, n_layer=2, n_head=2, n_positions=32))


def batch():
    ids = torch.randint(0, 150, (8, 24))
    return {"input_ids": ids, "labels": ids}


trained = get_peft_model(gpt(), LoraConfig(r=16, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True))
optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=2e-3)
frozen = None
out = tempfile.mkdtemp()

for step in range(1, 61):
    loss = trained(**batch()).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

    if step % 4 == 0:
        # evaluate what was really written to disk, in a model of its own
        path = os.path.join(out, f"step{step}")
        trained.save_pretrained(path)
        if frozen is None:
            frozen = PeftModel.from_pretrained(gpt(), path, adapter_name=f"step{step}")
        else:
            frozen.load_adapter(path, adapter_name=f"step{step}")  # LEAK
        frozen.set_adapter(f"step{step}")
        frozen.eval()
        with torch.no_grad():
            val = frozen(**batch()).loss.item()
        print(step, round(loss.item(), 4), round(val, 4))
