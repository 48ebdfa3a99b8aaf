"""An all-in-focus picture from a prompt."""
