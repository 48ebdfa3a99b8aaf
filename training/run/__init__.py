"""A run: its loop, checkpoints, log, samples and checks."""
