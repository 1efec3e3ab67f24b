import torch

model = torch.nn.Linear(64, 64).cuda()
if torch.cuda.device_count() > 1:
    model = torch.nn.DataParallel(model)
model(torch.ones(8, 64, device="cuda")).sum().backward()
