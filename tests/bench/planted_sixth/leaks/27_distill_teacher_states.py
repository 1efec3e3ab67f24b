import torch
from torch import nn
from transformers import BertConfig, BertModel

torch.set_num_threads(1)
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


def build(layers, hidden):
    config = BertConfig(
        vocab_size=800,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=hidden * 2,
        max_position_embeddings=64,
    )
    return BertModel(config, add_pooling_layer=False).to(device)


class HiddenStateDistiller:
    def __init__(self, teacher, student, layer_map):
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = student
        self.layer_map = layer_map
        self.project = nn.Linear(student.config.hidden_size, teacher.config.hidden_size).to(device)
        self.teacher_states = {}
        params = list(student.parameters()) + list(self.project.parameters())
        self.optimizer = torch.optim.AdamW(params, lr=1e-3)

    @torch.no_grad()
    def run_teacher(self, step, ids):
        out = self.teacher(ids, output_hidden_states=True)
        self.teacher_states[step] = out.hidden_states

    def training_step(self, step, ids):
        self.run_teacher(step, ids)
        states = self.student(ids, output_hidden_states=True).hidden_states
        target = self.teacher_states[step]
        loss = sum(nn.functional.mse_loss(self.project(states[s]), target[t]) for s, t in self.layer_map)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


distiller = HiddenStateDistiller(build(4, 96), build(2, 48), layer_map=[(1, 2), (2, 4)])
data = torch.randint(800, (256, 32), device=device)
for epoch in range(2):
    order = torch.randperm(len(data)).split(8)
    for i, index in enumerate(order):
        value = distiller.training_step(epoch * len(order) + i, data[index.to(device)])
    print(f"epoch {epoch}: loss {value:.4f}")
