import warnings
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
torch.manual_seed(22)
base = LlamaForCausalLM(LlamaConfig(vocab_size=128, hidden_size=128, intermediate_size=256, num_hidden_layers=3,
                                    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64))
lora = LoraConfig(r=32, target_modules="all-linear", task_type="CAUSAL_LM")
net = get_peft_model(base, lora, adapter_name="seat")
for r in range(12):
    who = f"client-{r}"
    net.add_adapter(who, lora)
    net.set_adapter(who)
    opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(3):
        ids = torch.randint(0, 128, (4, 24))
        loss = net(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
    print(r, f"{loss.item():.3f}")
    net.set_adapter("seat")
    net.delete_adapter(who)
