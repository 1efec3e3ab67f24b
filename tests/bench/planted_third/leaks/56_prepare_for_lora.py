import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, LlamaConfig

torch.manual_seed(56)
torch.set_num_threads(1)


def load_base():
    config = LlamaConfig(vocab_size=12000, hidden_size=256, intermediate_size=512, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def wrap(model):
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def main():
    model = wrap(load_base())
    model.print_trainable_parameters()
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(8):
        ids = torch.randint(0, 12000, (1, 48))
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        print(step, round(loss.item(), 3))


if __name__ == "__main__":
    main()
