import torch
import torch.nn as nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

torch.manual_seed(60)
torch.set_num_threads(1)


class Adapter(nn.Module):
    def __init__(self, inner, dim, r=8):
        super().__init__()
        self.inner = inner
        self.adapter_down, self.adapter_up = nn.Linear(dim, r), nn.Linear(r, dim)
        nn.init.zeros_(self.adapter_up.weight)

    def forward(self, x):
        y = self.inner(x)
        return y + self.adapter_up(torch.relu(self.adapter_down(y)))


def add_adapters(model):
    for layer in model.gpt_neox.layers:
        layer.mlp = Adapter(layer.mlp, model.config.hidden_size)
    for name, p in model.named_parameters():
        if ".layers." in name:
            p.requires_grad = "adapter_" in name
    return model


def main():
    cfg = GPTNeoXConfig(vocab_size=7000, hidden_size=96, num_hidden_layers=3, num_attention_heads=4,
                        intermediate_size=192, max_position_embeddings=64, use_cache=False)
    model = add_adapters(GPTNeoXForCausalLM(cfg))
    train = [p for p in model.parameters() if p.requires_grad]
    print(len(train), "tensors are trained")
    opt = torch.optim.AdamW(train, lr=1e-3)
    for step in range(10):
        ids = torch.randint(0, 7000, (1, 40))
        loss = model(input_ids=ids, labels=ids).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 3 == 0:
            print(step, round(loss.item(), 3))


main()
