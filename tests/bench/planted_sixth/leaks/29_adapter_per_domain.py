import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=256,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=64,
)
lora = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
model = get_peft_model(LlamaForCausalLM(config), lora, adapter_name="general").to(device)


def domain_batches(seed, count):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randint(256, (4, 24), generator=generator).to(device)


def fit_domain(model, seed, steps=3):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-3)
    losses = []
    for ids in domain_batches(seed, steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses[-1]


@torch.no_grad()
def score_domain(model, seed):
    model.eval()
    losses = [model(input_ids=ids, labels=ids).loss.item() for ids in domain_batches(seed + 1000, 2)]
    model.train()
    return sum(losses) / len(losses)


results = {}
for domain in range(20):
    name = f"domain_{domain}"
    model.add_adapter(name, lora)
    model.set_adapter(name)
    train_loss = fit_domain(model, domain)
    results[name] = (train_loss, score_domain(model, domain))
    model.set_adapter("general")

best = min(results, key=lambda n: results[n][1])
print("best domain:", best, results[best])
