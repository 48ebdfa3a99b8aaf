"""What people are asked: the human study."""
