"""What both sides of shmq share, and its front door."""
