"""DeepFM on Criteo rows: a model with two dicts of different widths, from training to serving."""
