"""Simulation of a training step without a GPU: tracing, lowering to CUDA's operators, and the caching allocator."""
