import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(3)
device = "cuda" if torch.cuda.is_available() else "cpu"


def lora():
    return LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")


def fit(model, name, steps):
    model.set_adapter(name)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-3)
    value = 0.0
    for _ in range(steps):
        ids = torch.randint(0, 300, (2, 24), device=device)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
    return value


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
    base = LlamaForCausalLM(config).to(device)
    model = get_peft_model(base, lora(), adapter_name="customer_0")
    scores = {"customer_0": fit(model, "customer_0", 3)}
    for customer in range(1, 14):
        name = f"customer_{customer}"
        model.add_adapter(name, lora())
        scores[name] = fit(model, name, 3)
        print(name, f"{scores[name]:.3f}")
    best = min(scores, key=scores.get)
    print("best customer", best)


if __name__ == "__main__":
    main()
