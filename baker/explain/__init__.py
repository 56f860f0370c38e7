"""What is in an image, what differs between two, and which step of which build put it there."""
