"""The lenses, and the shape of their opening."""
