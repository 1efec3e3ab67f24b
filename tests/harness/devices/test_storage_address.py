"""Where a tensor lies, for one that wraps others."""

import torch
from torch.distributed.tensor import distribute_tensor

from memory_harness.harness.devices.cuda import storage_address
from memory_harness.harness.devices.parallel import local_part
from memory_harness.harness.simulate.fsdp import mesh_of_absent


def test_a_tensor_that_lies_on_several_gpus_has_its_address_in_what_this_one_holds():
    shared = distribute_tensor(torch.ones(4), mesh_of_absent(2))
    assert storage_address(shared) is None
    assert storage_address(local_part(shared)) == shared._local_tensor.data_ptr()


def test_parts_of_a_tensor_have_the_address_of_the_whole():
    whole = torch.ones(4)
    assert storage_address(whole[2:]) == whole.data_ptr()
