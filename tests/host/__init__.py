"""A real ComfyUI for the demo and the tests: get it, start it, talk to it."""
