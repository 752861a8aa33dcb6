"""What becomes of an asyncio client's connection with its process: nobody closed it, forks, Ctrl-C."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

import shmq
from support.deadline import scaled


def test_a_connection_nobody_closed_warns_and_says_goodbye(url: str, mode: Any) -> None:
    async def main() -> None:
        async with shmq.connect_async(url) as other:
            await other.declare_queue("unclosed")
            await other.publish(b"x", routing_key="unclosed", confirm="memory")
            conn = await shmq.connect_async(url, mode=mode)
            await conn.get("unclosed", timeout=1)
            connections = [conn]
            del conn
            with pytest.warns(ResourceWarning, match="never closed"):
                connections.clear()
            gc.collect()

            message = await other.get("unclosed", timeout=scaled(2))

            assert message is not None
            await message.ack()

    asyncio.run(main())


def test_every_use_in_a_child_raises_and_the_parent_goes_on(url: str, mode: Any) -> None:
    def uses(conn: shmq.AsyncConnection, message: Any, consumer: Any) -> None:
        for use in (
            lambda: conn.publish(b"y", routing_key="forks"),
            lambda: conn.get("forks"),
            lambda: conn.get("other"),
            conn.status,
            consumer.__anext__,
            conn.close,
            message.ack,
        ):
            with pytest.raises(shmq.ForkedHandle):
                use().send(None)

    async def main() -> None:
        async with shmq.connect_async(url, mode=mode) as conn:
            await conn.declare_queue("forks")
            await conn.publish_many([b"x"] * 10, routing_key="forks", confirm="memory")
            message, consumer = await conn.get("forks"), conn.consume("forks", prefetch=3)
            held = await anext(consumer)
            assert message is not None
            pid = os.fork()
            if pid == 0:
                try:
                    uses(conn, message, consumer)
                    os._exit(0)
                except BaseException as error:  # noqa: BLE001 - the child ends here whatever it was
                    os.write(2, f"in the child: {error!r}\n".encode())
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # noqa: ASYNC222 - it ends at once
            await message.ack()
            await held.ack()
            task = asyncio.create_task(anext(consumer))
            await (await task).ack()
            await consumer.cancel()
            await conn.wait_for_confirms()
            await conn.delete_queue("forks")

    asyncio.run(main())


INTERRUPTED = """
import asyncio, sys, shmq

async def main():
    async with shmq.connect_async(sys.argv[1], mode=sys.argv[2]) as conn:
        message = await conn.get("interrupted", timeout=5)
        print(message.body.decode(), flush=True)
        async for message in conn.consume("interrupted"):
            print("unexpected", flush=True)

asyncio.run(main())
"""


def test_ctrl_c_closes_the_connection_and_gives_back_what_it_had(url: str, mode: Any) -> None:
    with shmq.connect(url) as conn:
        conn.declare_queue("interrupted")
        conn.publish(b"held", routing_key="interrupted", confirm="memory")
        command = [sys.executable, "-c", INTERRUPTED, url, mode]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            time.sleep(0.1)  # from its word until it waits
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=scaled(10))

        assert b"KeyboardInterrupt" in errors
        assert b"never closed" not in errors
        message = conn.get("interrupted", timeout=scaled(2))
        assert message is not None
        assert message.headers == {}  # no failure counted: it said goodbye
        message.ack()
        conn.delete_queue("interrupted")
