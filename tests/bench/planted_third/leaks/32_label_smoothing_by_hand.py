import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(32)
torch.set_num_threads(1)


class SmoothedLoss(nn.Module):
    def __init__(self, eps, vocab):
        super().__init__()
        self.eps, self.vocab = eps, vocab

    def forward(self, logits, labels):
        logits = logits[:, :-1].float()
        labels = labels[:, 1:]
        truth = nn.functional.one_hot(labels, self.vocab).float()
        truth = truth * (1 - self.eps) + self.eps / self.vocab
        logp = torch.log_softmax(logits, dim=-1)
        return -(truth * logp).sum(-1).mean()


def main():
    vocab = 9000
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    model = model.to(torch.bfloat16)
    criterion = SmoothedLoss(0.1, vocab)
    opt = torch.optim.SGD(model.parameters(), lr=1e-2)
    model.config.use_cache = False
    for step in range(5):
        ids = torch.randint(0, vocab, (4, 64))
        loss = criterion(model(ids).logits, ids)
        loss.backward()
        opt.step()
        opt.zero_grad()
        print(step, loss.item())


main()
