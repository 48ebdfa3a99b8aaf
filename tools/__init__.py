"""What starts a ComfyUI and makes pictures with it, for dev.py, the tests and the benchmarks.

`dev.py` runs before anything is installed: it and `demo`, `hero`, `provision`, `server` and `workflow` import
only the standard library. The pack and training import none of this.
"""
