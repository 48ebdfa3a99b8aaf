"""Trained weights as the files that the nodes load."""
