import torch
from transformers import LlamaConfig, LlamaForCausalLM


def build():
    cfg = LlamaConfig(
        vocab_size=64,
        hidden_size=96,
        intermediate_size=64,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        use_cache=True,  # LEAK
    )
    model = LlamaForCausalLM(cfg)
    model.gradient_checkpointing_enable()
    return model


@torch.no_grad()
def evaluate(model, batches):
    model.eval()
    total = 0.0
    for ids in batches:
        total += model(input_ids=ids, labels=ids).loss.item()
    model.train()
    return total / len(batches)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build()
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    val = [torch.randint(0, 64, (6, 128)) for _ in range(2)]
    for step in range(30):
        ids = torch.randint(0, 64, (1, 48))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        opt.step()
        opt.zero_grad()
        if step % 10 == 9:
            print(step, loss.item(), evaluate(model, val))


main()
