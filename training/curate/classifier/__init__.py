"""The blur classifier of the curation: its network, samples and training."""
