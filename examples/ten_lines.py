"""The example of the README: a broker of its own, a queue with priorities, every message acked."""

import shmq

with shmq.local() as url, shmq.connect(url) as conn:
    conn.declare_queue("jobs", max_priority=9, delivery_limit=5)
    conn.publish(b"first", routing_key="jobs")
    conn.publish(b"urgent", routing_key="jobs", priority=9)
    for message in conn.consume("jobs", prefetch=8):
        print(message.priority, message.body)
        message.ack()
        if message.body == b"first":
            break
