"""The CTR predictor."""
