import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(69)
torch.set_num_threads(1)
VOCAB = 12000


def load_base():
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=64, n_embd=96, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True
    )
    return GPT2LMHeadModel(config)


def add_special_tokens(model, count):
    model.resize_token_embeddings(VOCAB + count)
    return [VOCAB + i for i in range(count)]


def chat_row(specials, length=24):
    ids = torch.randint(VOCAB, (2, length))
    ids[:, 0], ids[:, length // 2], ids[:, -1] = specials
    return ids


base = load_base()
specials = add_special_tokens(base, 3)
model = get_peft_model(base, LoraConfig(r=4, target_modules=["c_attn"], task_type="CAUSAL_LM"))
model.get_input_embeddings().weight.requires_grad_(True)
trainable = [p for p in model.parameters() if p.requires_grad]
opt = torch.optim.AdamW(trainable, lr=1e-3)
for step in range(30):
    ids = chat_row(specials)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 10 == 0:
        print(step, loss.item())
