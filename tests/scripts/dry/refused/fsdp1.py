import torch
from torch import distributed
from torch.distributed.fsdp import FullyShardedDataParallel

distributed.init_process_group("nccl")
model = FullyShardedDataParallel(torch.nn.Linear(64, 64).cuda())
