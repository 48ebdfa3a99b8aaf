"""Where a photographer would focus: saliency of picture and depth, and the focus distance out of it."""
