"""Under gevent and eventlet: no wait of the transport keeps other greenlets from running."""

import importlib.util
import subprocess
import sys

import pytest

from support.deadline import scaled
from support.needs import missing

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all(); from gevent import sleep, spawn",
    "eventlet": "import eventlet; eventlet.monkey_patch(); from eventlet import sleep, spawn",
}
BODY = """
import sys, time
import kombu
import shmq_clients.kombu

conn = kombu.Connection(sys.argv[1])
queue = kombu.Queue(sys.argv[2], routing_key=sys.argv[2])
full = kombu.Queue("full", routing_key="full", queue_arguments={"x-capacity-messages": 1})
got, ticks = [], []

def tick():
    while True:
        ticks.append(time.monotonic())
        sleep(0.01)  # one beat

def publish():
    sleep(0.3)  # until the other waits
    with kombu.Connection(sys.argv[1]) as other:
        kombu.Producer(other).publish("x", routing_key=queue.name, declare=[queue])

def late_ack(message):
    sleep(0.05)  # until the window is waited for
    message.ack()

spawn(tick)
consumer = kombu.Consumer(conn, [queue], prefetch_count=1)
consumer.register_callback(lambda body, message: (got.append(body), spawn(late_ack, message)))
consumer.consume()
spawn(publish)
spawn(publish)
while len(got) < 2:
    conn.drain_events(timeout=5)
started = time.monotonic()
try:
    conn.drain_events(timeout=0.5)
except TimeoutError:
    got.append("nothing")
producer = kombu.Producer(conn)
try:
    for number in range(100_000):
        producer.publish(number, routing_key="full", declare=[full], timeout=0.5)
except conn.channel_errors:
    got.append("full")
longest = max(after - before for before, after in zip(ticks, ticks[1:] + [time.monotonic()]))
print(got, "held up" if longest > float(sys.argv[3]) else "free", round(longest, 3))
conn.release()
"""


@pytest.mark.parametrize("loop", PATCH)
def test_others_run_while_it_waits(url: str, loop: str) -> None:
    if importlib.util.find_spec(loop) is None:  # not imported: eventlet warns of every fork of its process from then on
        missing(f"the package {loop}")
    command = [sys.executable, "-W", "ignore", "-c", PATCH[loop] + BODY, url, f"green-{loop}", str(scaled(0.25))]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=scaled(30), check=False)

    assert ran.stdout.startswith("['x', 'x', 'nothing', 'full'] free"), ran.stdout + ran.stderr
