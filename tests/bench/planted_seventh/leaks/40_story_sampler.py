import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(18)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=256,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
)
model = LlamaForCausalLM(config).to(device)
model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)


def show_story(step):
    model.eval()
    prompt = torch.tensor([[1, 17, 42, 9]], device=device)
    with torch.no_grad():
        story = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=True)
    print(step, "story:", story[0, 4:].tolist())


def train_step(ids):
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


for step in range(30):
    loss = train_step(torch.randint(2, 256, (4, 64), device=device))
    if step % 10 == 9:
        print(step, round(loss, 4))
        show_story(step)
