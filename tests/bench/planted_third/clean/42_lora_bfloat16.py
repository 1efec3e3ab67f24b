import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

torch.manual_seed(142)
torch.set_num_threads(1)


def load_base():
    config = LlamaConfig(vocab_size=6000, hidden_size=192, intermediate_size=384, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def main():
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(load_base(), lora)
    model.print_trainable_parameters()
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(16):
        ids = torch.randint(0, 6000, (1, 32))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        if step % 8 == 0:
            print(step, round(loss.item(), 3))


if __name__ == "__main__":
    main()
