"""A client in plain Python: a socket, MessagePack and docs/PROTOCOL.md. Nothing of shmq is imported.

    python examples/plain_client.py /path/of.sock

Publishes three messages through an exchange, acks one, gives one back, rejects one, and finds that among the dead.
"""

import os
import socket
import sys
from itertools import count
from typing import Any

import msgpack  # type: ignore[import-not-found, import-untyped, unused-ignore] # it has no types

HELLO, GOODBYE, DECLARE_QUEUE, DELETE_QUEUE, DECLARE_EXCHANGE, BIND_QUEUE = 1, 2, 8, 9, 13, 15
PUBLISH, GET, CONSUME, CANCEL, ACK, NACK, REJECT = 32, 40, 41, 42, 48, 49, 50
WELCOME, CLOSING, ERROR, DELIVER = 64, 65, 66, 96
DONE, CONFIRM_MEMORY, TIMEOUT_NS = 200, 2, 5_000_000_000


class Client:
    """One session in socket mode."""

    def __init__(self, path: str) -> None:
        self._pushed: list[list[Any]] = []  # deliveries that came before anybody looked
        self._numbers = count(1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(10)
        self._socket.connect(path)
        self._stream = self._socket.makefile("rb")
        self.send(HELLO, "shmq", 1, 0, "plain", "1", os.getpid(), "socket", None)
        assert self.receive()[0] == WELCOME

    def send(self, *frame: Any) -> None:  # noqa: ANN401 - a tag and its fields
        payload = msgpack.packb(frame)
        self._socket.sendall(len(payload).to_bytes(4, "big") + payload)

    def receive(self) -> list[Any]:
        length = int.from_bytes(self._stream.read(4), "big")
        frame: list[Any] = msgpack.unpackb(self._stream.read(length)) if length else [CLOSING, 320, "broken off"]
        if frame[0] == CLOSING and frame[1] != DONE:
            raise ConnectionError(*frame[1:3])
        if frame[0] == DELIVER:
            self._pushed += frame[2]
        return frame

    def ask(self, tag: int, *fields: Any) -> list[Any]:  # noqa: ANN401 - as send
        """Send a request; return what its answer says."""
        self.send(tag, number := next(self._numbers), *fields)
        while True:
            tag, *answer = self.receive()
            if tag == ERROR:
                raise RuntimeError(f"{answer[1]} {answer[2]}")
            if answer[:1] == [number]:
                return answer[1:]

    def publish(self, exchange: str, key: str, body: bytes, **properties: Any) -> None:  # noqa: ANN401 - AMQP's
        envelope = msgpack.packb([exchange, key, properties, {}])
        self.ask(PUBLISH, exchange, key, envelope, body, 0, 0, CONFIRM_MEMORY, True, -1, 0, TIMEOUT_NS)

    def next_delivery(self) -> list[Any]:
        while not self._pushed:
            self.receive()
        return self._pushed.pop(0)

    def close(self) -> None:
        self.send(GOODBYE, True)
        while self.receive()[0] != CLOSING:
            pass
        self._stream.close()
        self._socket.close()


def main(path: str) -> None:
    """Do what the first lines say."""
    client = Client(path)
    client.ask(DECLARE_EXCHANGE, {"name": "plain.events", "type": "topic", "auto_delete": True})
    client.ask(DECLARE_QUEUE, {"name": "plain.dead"})
    dead_letters = {"dead_letter_exchange": "", "dead_letter_routing_key": "plain.dead"}
    client.ask(DECLARE_QUEUE, {"name": "plain.jobs"} | dead_letters)
    client.ask(BIND_QUEUE, "plain.jobs", "plain.events", "job.*")
    for number in range(3):
        client.publish("plain.events", "job.new", b"job %d" % number, message_id=str(number))
    consumer_tag, *_ = client.ask(CONSUME, "plain.jobs", "", 2)
    for settle in (ACK, NACK, ACK, REJECT):
        tag, _level, _flags, deliveries, _failures, _sequence, _expires, envelope, body, *_ = client.next_delivery()
        print(f"{body.decode()}, delivery {deliveries}, key {msgpack.unpackb(envelope)[1]}: frame {settle}")
        client.ask(settle, [tag])
    client.ask(CANCEL, consumer_tag)
    ((dead, *_),) = client.ask(GET, "plain.dead", 1, TIMEOUT_NS)
    _exchange, _key, properties, headers, *_ = msgpack.unpackb(dead[7])
    print(f"dead: {dead[8].decode()}, message {properties['message_id']}, {headers['x-death'][0]['reason']}")
    client.ask(ACK, [dead[0]])
    print([f"{queue}: {client.ask(DELETE_QUEUE, queue)[0]} left" for queue in ("plain.jobs", "plain.dead")])
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
