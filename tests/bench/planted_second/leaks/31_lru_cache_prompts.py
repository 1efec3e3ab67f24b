from functools import lru_cache

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"

text_encoder = nn.Sequential(nn.Embedding(128, 64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 128)).to(device).eval()
unet = nn.Sequential(nn.Linear(128 + 32, 128), nn.SiLU(), nn.Linear(128, 32)).to(device)
opt = torch.optim.AdamW(unet.parameters(), lr=1e-3)


@lru_cache(maxsize=None)
def encode_prompt(prompt):
    ids = torch.tensor([[ord(c) % 128 for c in prompt.ljust(77)[:77]]], device=device)
    with torch.no_grad():
        return text_encoder(ids)  # LEAK


SUBJECTS = ["a dog", "a cat", "a red car", "an old house", "two birds"]
STYLES = ["in oil", "in pencil", "as a photo", "in pixels"]


def caption(i):
    # every picture of the set has a caption of its own
    return f"{SUBJECTS[i % 5]} {STYLES[i % 4]}, number {i}"


for step in range(130):
    captions = [caption(step * 2 + j) for j in range(2)]
    cond = torch.cat([encode_prompt(c) for c in captions]).mean(1)
    latents = torch.randn(2, 32, device=device)
    noise = torch.randn_like(latents)
    pred = unet(torch.cat([cond, latents + noise], dim=1))
    loss = (pred - noise).pow(2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 40 == 0:
        print(step, loss.item(), encode_prompt.cache_info().currsize)
