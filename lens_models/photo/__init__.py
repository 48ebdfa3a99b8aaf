"""A photo's own camera: EXIF read, the CAMERA it means, and files written."""
