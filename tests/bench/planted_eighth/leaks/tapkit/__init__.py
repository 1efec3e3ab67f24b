from .tap import tapped
from .model import build
