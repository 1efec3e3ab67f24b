import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(64)
torch.set_num_threads(1)


def base():
    config = LlamaConfig(
        vocab_size=12000, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
    )
    return LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)


def prepare(model):
    for name, param in model.named_parameters():
        param.requires_grad_(False)
        if param.ndim >= 1:
            param.data = param.data.float()
    model.config.use_cache = False
    return model


def lora(model):
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def rows(n=2, length=20):
    return (torch.randint(12000, (n, 1)) + torch.arange(length)) % 12000


def train(model, steps=24):
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for step in range(steps):
        ids = rows()
        loss = model(input_ids=ids, labels=ids).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 8 == 0:
            print(step, loss.item())


if __name__ == "__main__":
    model = prepare(base())
    model = lora(model)
    model.print_trainable_parameters()
    train(model)
