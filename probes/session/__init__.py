"""A whole probe, training or watched script: which processes run, in which order, and what came of them."""
