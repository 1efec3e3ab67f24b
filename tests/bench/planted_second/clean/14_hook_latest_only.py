import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
activation = {}


def get_activation(name):
    def hook(model, input, output):
        activation[name] = output.detach()

    return hook


class Student(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(50, width), nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, x):
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


teacher, student = Student(256).to(device).eval().requires_grad_(False), Student(64).to(device)
project = nn.Linear(64, 256).to(device)
teacher.fc2.register_forward_hook(get_activation("t"))
s_out = {}
student.fc2.register_forward_hook(lambda m, i, o: s_out.update(s=o))
opt = torch.optim.Adam([*student.parameters(), *project.parameters()], lr=1e-3)
for step in range(120):
    x = torch.randn(64, 50, device=device)
    with torch.no_grad():
        soft = teacher(x).softmax(1)
    loss = nn.functional.cross_entropy(student(x), soft) + 0.1 * (project(s_out["s"]) - activation["t"]).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 30 == 0:
        print(step, loss.item(), {k: tuple(v.shape) for k, v in activation.items()})
