import torch
from transformers import BertConfig, BertModel


def bert(layers):
    return BertModel(BertConfig(vocab_size=150, hidden_size=48, num_hidden_layers=layers, num_attention_heads=4,
                                intermediate_size=96, max_position_embeddings=32), add_pooling_layer=False)


class Distiller:
    def __init__(self):
        self.teacher = bert(4).eval().requires_grad_(False)
        self.student = bert(2)
        self.opt = torch.optim.AdamW(self.student.parameters(), lr=1e-3)

    def step(self, ids):
        with torch.no_grad():
            t = self.teacher(input_ids=ids, output_hidden_states=True).hidden_states
        s = self.student(input_ids=ids, output_hidden_states=True).hidden_states
        loss = sum((a - b).pow(2).mean() for a, b in zip(s[1:], (t[2], t[4])))
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


torch.set_num_threads(1)
torch.manual_seed(36)
d = Distiller()
curve = [d.step(torch.randint(3, 150, (4, 32))) for _ in range(45)]
print(curve[0], curve[-1])
