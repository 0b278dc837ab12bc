"""Training of the embedded model, `python -m score.training`."""
