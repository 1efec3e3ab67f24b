"""A data loader with worker processes, a class of the script's own as its data set, and both start methods."""

import torch
from digest import show
from torch.utils.data import DataLoader, Dataset, get_worker_info


class Squares(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.tensor([index, index**2, get_worker_info().id, torch.initial_seed() % 1000]).float()


def main():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for start in ("fork", "spawn"):
        loader = DataLoader(Squares(), batch_size=4, shuffle=True, num_workers=2, multiprocessing_context=start)
        for batch in loader:
            loss = model(batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(start, loss.item(), batch.sum().item())
    show(model)


if __name__ == "__main__":
    main()
