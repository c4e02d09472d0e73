"""Criteo CTR prediction from training to serving: train, export, serve, check."""
