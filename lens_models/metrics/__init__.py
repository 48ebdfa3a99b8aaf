"""The paper's metrics in one place, for the nodes and for training alike."""
