"""What a training run leaves for people: replies, scores, experiments, the model card. Never imports torch."""
