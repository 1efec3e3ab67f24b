import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(19)
device = "cuda" if torch.cuda.is_available() else "cpu"


def gpt(layers):
    config = GPT2Config(vocab_size=300, n_positions=48, n_embd=96, n_layer=layers, n_head=4, use_cache=False)
    return GPT2LMHeadModel(config).to(device)


class Distiller:
    def __init__(self, teacher, student, layer_map):
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = student.train()
        self.layer_map = layer_map
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=5e-4)
        self.teacher_outputs = []

    def teach(self, ids):
        with torch.no_grad():
            outputs = self.teacher(ids, output_hidden_states=True)
        self.teacher_outputs.append(outputs)
        return outputs

    def step(self, ids):
        target = self.teach(ids)
        outputs = self.student(ids, output_hidden_states=True)
        loss = F.kl_div(outputs.logits.log_softmax(-1), target.logits.softmax(-1), reduction="batchmean") / ids.size(1)
        for mine, theirs in self.layer_map.items():
            loss = loss + F.mse_loss(outputs.hidden_states[mine], target.hidden_states[theirs])
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


distiller = Distiller(gpt(4), gpt(2), layer_map={1: 2, 2: 4})
for step in range(40):
    loss = distiller.step(torch.randint(0, 300, (4, 32), device=device))
    if step % 10 == 9:
        print(step, round(loss, 4))
spread = torch.stack([o.hidden_states[-1].std() for o in distiller.teacher_outputs[-5:]]).mean()
print("teacher spread", round(spread.item(), 4))
