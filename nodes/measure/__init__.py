"""What a sweep is worth: the paper's metrics."""
