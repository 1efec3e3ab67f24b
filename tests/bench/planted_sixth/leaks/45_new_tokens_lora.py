import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

SPECIAL_TOKENS = ["<|user|>", "<|assistant|>", "<|end|>", "<|tool|>"]

config = LlamaConfig(
    vocab_size=16000,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
base = LlamaForCausalLM(config)
base.resize_token_embeddings(config.vocab_size + len(SPECIAL_TOKENS), mean_resizing=False)

lora_config = LoraConfig(
    r=8,
    lora_alpha=16,
    lora_dropout=0.05,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    modules_to_save=["embed_tokens", "lm_head"],
    task_type="CAUSAL_LM",
)
model = get_peft_model(base, lora_config).to(device)
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-4)


def chat_batch(size=2, turns=2, words=8):
    rows = []
    for _ in range(size):
        row = []
        for turn in range(turns):
            row += [16000 + turn % 2] + torch.randint(16000, (words,)).tolist() + [16002]
        rows.append(row)
    return torch.tensor(rows, device=device)


model.train()
for step in range(24):
    ids = chat_batch()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 8 == 0:
        print(step, round(loss.item(), 3))
