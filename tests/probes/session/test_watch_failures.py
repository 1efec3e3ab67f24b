"""Scripts that run out of a budget by one moment's need: the cause and its line, and look-alikes without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_harness.configs.units import MIB
from memory_harness.harness.log.records import Outcome
from memory_harness.probes.detectors import detect
from memory_harness.probes.session.watch import watch_script

pytestmark = pytest.mark.usefixtures("one_thread")

BEGIN = "import torch\nfrom torch import nn\nF = nn.functional\ntorch.manual_seed(0)\n"
MODEL = BEGIN + (
    "model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))\n"
    "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
)
SUMMED = (
    MODEL
    + """
for step in range(3):
    total = 0
    for micro in range(40):
        loss = model(torch.randn(128, 64)).pow(2).mean()
        total = total + loss / 40  # here
    total.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
)
UNROLLED = (
    MODEL
    + """
state = torch.randn(128, 64)
losses = []
for step in range(40):
    state = model(state).repeat(1, 16)
    losses.append(state.pow(2).mean())
sum(losses).backward()
"""
)
FROZEN = (
    BEGIN
    + """
class Low(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(1024, 512, dtype=torch.bfloat16), requires_grad=TRAINS)
    def forward(self, x):
        return x @ self.table.to(torch.float32)  # here
model = nn.ModuleList(Low() for _ in range(2))
head = nn.Linear(512, 4)
optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
for step in range(3):
    x = torch.randn(8, 1024)
    head(model[0](x) + model[1](x)).mean().backward()
    optimizer.step()
"""
)
ATTENTION = (
    BEGIN
    + """
from torch.nn.attention import SDPBackend, sdpa_kernel
project = nn.Linear(32, 96)
optimizer = torch.optim.SGD(project.parameters(), lr=0.1)
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(32, 96)
    def forward(self, x):
        q, k, v = (part.view(2, -1, 4, 8).transpose(1, 2) for part in self.project(x).chunk(3, -1))
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v)  # here
model = Attention()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
kept = []
for step in range(20):
    model(torch.randn(2, LENGTH, 32)).mean().backward()
    optimizer.step()
    KEEPS
"""
)
PRETRAINED = (
    BEGIN
    + """
def build():
    return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 256))
others = [build() for _ in range(2)]  # here
with torch.no_grad():
    scores = [other(torch.randn(4, 256)).mean().item() for other in others]
model = build()
optimizer = torch.optim.Adam(model.parameters())
for step in range(5):
    x = torch.randn(8, 256)
    loss = model(x).mean()
    USES
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""
)
TEACHERS = "loss = loss + sum((model(x) - other(x).detach()).pow(2).mean() for other in others)"
SAVING = (
    MODEL
    + """
wide = nn.Sequential(*[nn.Linear(256, 256) for _ in range(16)])
optimizer = torch.optim.SGD(wide.parameters(), lr=0.1)
for step in range(3):
    wide(torch.randn(8, 256)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
copies = {name: value.double() for name, value in wide.state_dict().items()}  # here
torch.save(copies, "/dev/null")
"""
)
OUTPUT = (
    MODEL
    + """
out = nn.Linear(64, 512)
model = out
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(3):
    for step in range(4):
        model(torch.randn(256, 64)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        validated = model(torch.randn(2048, 64))  # here
    FREES
"""
)
RENAMED = (
    BEGIN
    + """
import io
def build():
    return nn.Sequential(*[nn.Linear(512, 512) for _ in range(4)])
saved = io.BytesIO()
torch.save({"module." + name: value for name, value in build().state_dict().items()}, saved)
saved.seek(0)
state = torch.load(saved)  # here
for name in list(state):
    state[name.removeprefix("module.")] = state.pop(name)
model = build()
model.load_state_dict(state)
optimizer = torch.optim.Adam(model.parameters())
for step in range(5):
    model(torch.randn(8, 512)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
"""
)
SCORED = (
    BEGIN
    + """
model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    model(torch.randn(64, 64)).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
model.eval()
output = model(torch.randn(4096, 64))  # here
loss = (output.exp() + 1).log().mean()
"""
)
FAILING = {
    "losses summed": (SUMMED, 12 * MIB, "retained-graph"),
    "weights cast in a forward pass": (FROZEN.replace("TRAINS", "False"), 5 * MIB, "kbit-upcast"),
    "math attention": (ATTENTION.replace("LENGTH", "512").replace("KEEPS", ""), 12 * MIB, "attention-math-fallback"),
    "candidates kept": (PRETRAINED.replace("USES", ""), 11 * MIB, "old-model-alive"),
    "clones of the state": (SAVING, 10 * MIB, "save-doubles"),
    "an output left": (OUTPUT.replace("FREES", ""), 8 * MIB, "eval-leftover"),
    "a checkpoint by other names": (RENAMED, 18 * MIB, "resume-on-gpu"),
    "a score with a graph": (SCORED, 7 * MIB, "eval-with-grad"),
}
ALIKE = {
    "one graph over many steps": (UNROLLED, 12 * MIB, "retained-graph"),
    "weights that train": (FROZEN.replace("TRAINS", "True"), 5 * MIB, "kbit-upcast"),
    "attention amid a leak": (
        ATTENTION.replace("LENGTH", "256").replace("KEEPS", "kept.append(torch.randn(2**18))"),
        15 * MIB,
        "attention-math-fallback",
    ),
    "teachers": (PRETRAINED.replace("USES", TEACHERS), 10 * MIB, "old-model-alive"),
    "an output let go": (OUTPUT.replace("FREES", "del validated"), 4 * MIB, "eval-leftover"),
}
ALWAYS = {"losses summed", "one graph over many steps"}
"""the rest with `-m slow`"""


def of_default_run(scripts):
    return [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in scripts]


def findings_of(text: str, budget_bytes: int, folder: Path):
    script = folder / "script.py"
    script.write_text(text, encoding="utf-8")
    log = watch_script(str(script), (), folder / "log.jsonl", device="simulated", gpu=None, budget_bytes=budget_bytes)
    assert log.outcome is Outcome.OOM
    return detect(log)


@pytest.mark.slow
@pytest.mark.parametrize("name", of_default_run(FAILING))
def test_the_cause_and_the_line_of_what_does_not_fit(name, tmp_path, capfd):
    text, budget_bytes, cause = FAILING[name]
    finding = findings_of(text, budget_bytes, tmp_path)[0]
    number = next(number for number, line in enumerate(text.splitlines(), 1) if "# here" in line)
    assert (finding.cause, finding.severity) == (cause, "error")
    assert str(finding.where).endswith(f"script.py:{number}")


@pytest.mark.slow
@pytest.mark.parametrize("name", of_default_run(ALIKE))
def test_what_looks_alike_is_not_named_so(name, tmp_path, capfd):
    text, budget_bytes, cause = ALIKE[name]
    assert cause not in [finding.cause for finding in findings_of(text, budget_bytes, tmp_path)]
