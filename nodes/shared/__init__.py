"""What the nodes share: sockets, messages, pictures, files."""
