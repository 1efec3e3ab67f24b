"""A CUDA card as a script sees it, on a machine that has none: devices, `torch.cuda`, values, files."""
