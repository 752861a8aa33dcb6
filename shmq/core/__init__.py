"""The C part: queues in shared memory."""
