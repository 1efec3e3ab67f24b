import torch
import torch.nn.functional as F
from transformers import BertConfig, BertForSequenceClassification

torch.manual_seed(0)
torch.set_num_threads(1)


def bert(hidden, layers):
    return BertForSequenceClassification(
        BertConfig(vocab_size=150, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
                   intermediate_size=2 * hidden, max_position_embeddings=32, num_labels=4)
    )


teacher, student = bert(96, 4).eval(), bert(32, 2)
opt = torch.optim.AdamW(student.parameters(), lr=1e-3)
running = {"ce": 0.0, "kd": 0.0}
for step in range(1, 61):
    ids = torch.randint(1, 150, (8, 24))
    labels = ids[:, 0] % 4
    with torch.no_grad():
        t = teacher(input_ids=ids).logits
    s = student(input_ids=ids).logits
    ce = F.cross_entropy(s, labels)
    kd = F.kl_div(F.log_softmax(s / 2, -1), F.log_softmax(t / 2, -1), reduction="batchmean", log_target=True) * 4
    opt.zero_grad()
    (ce + kd).backward()
    opt.step()
    running["ce"] += ce.item()
    running["kd"] += kd.item()
    if step % 20 == 0:
        print(step, {k: v / 20 for k, v in running.items()})
        running = dict.fromkeys(running, 0.0)
