"""Depth in metres: estimated, loaded, converted, shown."""
