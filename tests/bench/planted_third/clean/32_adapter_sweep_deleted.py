import os
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import OPTConfig, OPTForCausalLM

torch.manual_seed(132)
torch.set_num_threads(1)


def base():
    torch.manual_seed(0)
    return OPTForCausalLM(OPTConfig(vocab_size=200, hidden_size=96, ffn_dim=192, num_hidden_layers=3, num_attention_heads=4,
                                    max_position_embeddings=64, word_embed_proj_dim=96))


def produce(folder, n):
    for i in range(n):
        m = get_peft_model(base(), LoraConfig(r=16, target_modules=["q_proj", "v_proj", "fc1"], lora_alpha=16))
        for name, p in m.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.02 * (i + 1))
        m.save_pretrained(os.path.join(folder, f"run{i}"))
        yield os.path.join(folder, f"run{i}")


@torch.no_grad()
def perplexity(model, ids):
    return model(input_ids=ids, labels=ids).loss.exp().item()


with tempfile.TemporaryDirectory() as folder:
    runs = list(produce(folder, 3))
    model = PeftModel.from_pretrained(base(), runs[0], adapter_name="keep").eval()
    ids = torch.randint(0, 200, (4, 32))
    table = {}
    for sweep in range(6):
        for i, path in enumerate(runs):
            name = f"run{i}_{sweep}"
            model.load_adapter(path, adapter_name=name)
            model.set_adapter(name)
            table[name] = perplexity(model, ids)
            model.set_adapter("keep")
            model.delete_adapter(name)
    print({k: round(v, 2) for k, v in table.items() if k.endswith("_5")}, list(model.peft_config))
