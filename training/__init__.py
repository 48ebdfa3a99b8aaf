"""Training of the generator and the focus predictor: `python -m training <command>`."""
