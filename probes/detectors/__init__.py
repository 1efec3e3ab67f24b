"""Detectors: one file per family of causes, each a function from a `RunLog` to findings. Register it in `DETECTORS`."""
