import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
torch.manual_seed(2)
device = "cuda" if torch.cuda.is_available() else "cpu"

config = LlamaConfig(
    vocab_size=256,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
)
model = LlamaForCausalLM(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)


class SampleBackend:
    """Generates samples for the training dashboard and remembers what each one was made from."""

    def __init__(self, model):
        self.model = model
        self.samples = {}

    @torch.no_grad()
    def instruct(self, key, prompt):
        self.model.eval()
        result = self.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=8,
            do_sample=False,
            return_dict_in_generate=True,
        )
        self.model.train()
        self.samples[key] = {"prompt_tokens": prompt.size(1), "hf_output": result}
        return result.sequences[:, prompt.size(1) :]


backend = SampleBackend(model)
for step in range(40):
    ids = torch.randint(1, 256, (4, 32), device=device)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 3 == 2:
        text = backend.instruct(f"step-{step}", ids[:2, :24])
        print(step, round(loss.item(), 3), text[0].tolist())
print("samples made:", len(backend.samples))
