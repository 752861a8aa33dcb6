"""Which queues a message goes to: one pure module for broker, supervisor and direct clients. No socket, no clock."""
