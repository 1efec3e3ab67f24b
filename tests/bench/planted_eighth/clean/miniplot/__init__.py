"""Stands for pyplot: a registry of open figures."""
from ._registry import figure, close, fignums
