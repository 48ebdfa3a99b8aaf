"""The two stages of the paper: distribution matching, its losses and its schedule."""
