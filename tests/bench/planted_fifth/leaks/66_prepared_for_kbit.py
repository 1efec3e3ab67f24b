import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(66)
torch.set_num_threads(1)
VOCAB = 16000


def base_model():
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=192, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, use_cache=False
    )
    return LlamaForCausalLM(config).to(torch.bfloat16)


def with_adapters(model):
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))


def batch():
    return torch.randint(VOCAB, (1, 24))


def main():
    model = with_adapters(base_model())
    opt = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    for step in range(30):
        ids = batch()
        loss = model(input_ids=ids, labels=ids).loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 10 == 0:
            print(step, round(loss.item(), 3))


main()
