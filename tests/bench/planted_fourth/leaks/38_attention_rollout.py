import torch
from transformers import BertConfig, BertForTokenClassification

torch.manual_seed(39)
torch.set_num_threads(1)


def build():
    config = BertConfig(
        vocab_size=120, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=96, num_labels=3, hidden_dropout_prob=0.0,
    )
    return BertForTokenClassification._from_config(config, attn_implementation="eager")


def batch(n=4, length=64):
    ids = torch.randint(3, 120, (n, length))
    return {"input_ids": ids, "labels": ids % 3}


def rollout(attentions):
    eye = torch.eye(attentions[0].size(-1))
    joint = eye
    for a in attentions:
        joint = (0.5 * a.mean(1) + 0.5 * eye) @ joint
    return joint


def evaluate(model, batches):
    model.eval()
    seen = []
    with torch.no_grad():
        for b in batches:
            out = model(**b, output_attentions=True)
            seen.append(out)
    model.train()
    loss = sum(o.loss.item() for o in seen) / len(seen)
    return loss, rollout(seen[0].attentions)[0, 0].topk(3).indices.tolist()


model = build()
opt = torch.optim.Adam(model.parameters(), 1e-3)
held_out = [batch() for _ in range(36)]
for epoch in range(2):
    print("before epoch", epoch, evaluate(model, held_out))
    for _ in range(10):
        opt.zero_grad()
        loss = model(**batch()).loss
        loss.backward()
        opt.step()
    print("train", loss.item())
