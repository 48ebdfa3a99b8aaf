"""The training set on disk, and the order in which it is read."""
