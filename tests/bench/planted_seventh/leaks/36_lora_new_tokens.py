import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(14)
device = "cuda" if torch.cuda.is_available() else "cpu"

BASE_VOCAB = 12000
NEW_TOKENS = ["<tool>", "</tool>", "<result>", "</result>"]


def load_base():
    config = LlamaConfig(
        vocab_size=BASE_VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    model.resize_token_embeddings(BASE_VOCAB + len(NEW_TOKENS), mean_resizing=False)
    return model


peft_config = LoraConfig(
    r=8,
    lora_alpha=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    modules_to_save=["embed_tokens", "lm_head"],
    task_type="CAUSAL_LM",
)
model = get_peft_model(load_base(), peft_config).to(device)
model.print_trainable_parameters()
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)

for step in range(24):
    ids = torch.randint(0, BASE_VOCAB, (1, 20), device=device)
    ids[:, 0], ids[:, 6] = BASE_VOCAB, BASE_VOCAB + 1
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 8 == 7:
        print(step, round(loss.item(), 3))
