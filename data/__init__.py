"""What is on disk, in which order it is read, and where inputs come from."""
