import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
torch.set_num_threads(1)


def build():
    cfg = LlamaConfig(
        vocab_size=1500, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )
    return LlamaForCausalLM(cfg).eval()


class UncertaintyReport:
    """Generates answers and, at the end, says how sure the model was of each."""

    def __init__(self, model):
        self.model = model
        self.results = []

    def answer(self, prompt):
        out = self.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False,
            return_dict_in_generate=True, output_scores=True,
        )
        self.results.append(out)  # LEAK
        return out.sequences[:, prompt.shape[1] :]

    def summary(self):
        sure = [torch.stack(r.scores, 1).softmax(-1).amax(-1).mean().item() for r in self.results]
        return sum(sure) / len(sure)


model = build()
report = UncertaintyReport(model)
for i in range(45):
    prompt = torch.randint(2, 1500, (4, 10))
    new = report.answer(prompt)
    if i % 15 == 0:
        print(i, new[0].tolist())
print("mean confidence", report.summary())
