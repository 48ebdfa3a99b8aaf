"""A picture as layers that hide one another: cutting, matting, filling, and laying them together again."""
