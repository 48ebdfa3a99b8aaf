"""Camera, Camera from Photo, Aperture Sweep, Batch Sweep."""
