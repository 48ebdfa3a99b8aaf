"""What the nodes share: sockets, inputs, messages, images, files, networks, progress."""
