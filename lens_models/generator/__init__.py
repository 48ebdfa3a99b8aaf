"""The all-in-focus generator: SDXL distilled to a few steps, and its camera conditioning."""
