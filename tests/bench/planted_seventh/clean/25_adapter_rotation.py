import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(33)
device = "cuda" if torch.cuda.is_available() else "cpu"


def lora():
    return LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")


def fit(model, name, steps=3):
    model.set_adapter(name)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        ids = torch.randint(0, 300, (2, 24), device=device)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def main():
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        use_cache=False,
    )
    model = get_peft_model(LlamaForCausalLM(config).to(device), lora(), adapter_name="shared")
    scores = {}
    for customer in range(12):
        name = f"customer_{customer}"
        model.add_adapter(name, lora())
        scores[name] = fit(model, name)
        model.set_adapter("shared")
        model.delete_adapter(name)
        print(name, f"{scores[name]:.3f}", "adapters:", list(model.peft_config))
    print("best", min(scores, key=scores.get))


if __name__ == "__main__":
    main()
