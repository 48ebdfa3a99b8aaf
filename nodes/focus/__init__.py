"""Where the lens is focused."""
