"""rabbitmq-server with a node name, an epmd, a cookie and directories of its own; loopback alone; no plugins.

Owns: its environment (RabbitMQ's "Configuration" page, part "Environment Variables"; epmd(1)). The system's own node,
if there is one, is not touched and not seen: it is registered with another epmd.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .server import Server, find_program, free_port, listens

SCRIPTS: Final = (
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
)  # Debian's; the one in PATH changes its user and directories
START_SECONDS: Final = 60.0
SETTINGS: Final = "TCP on loopback, no plugins, classic queues, transient messages, no confirms"


@contextmanager
def rabbitmq(directory: Path) -> Iterator[int]:
    """Run it; yields the AMQP port."""
    port, epmd_port, node_port = free_port(), free_port(), free_port()
    configuration = directory / "rabbitmq.conf"
    configuration.write_text(
        f"listeners.tcp.local = 127.0.0.1:{port}\nlog.console.level = error\nvm_memory_high_watermark.relative = 0.6\n"
    )
    (directory / "enabled_plugins").write_text("[].\n")
    environment = _environment(directory, configuration, epmd_port, node_port)
    epmd = Server(directory, [find_program("epmd") or "epmd", "-port", str(epmd_port), "-address", "127.0.0.1"])
    try:
        epmd.wait_until(lambda: listens(epmd_port), 10)
        server = Server(directory, [_script()], environment)
        try:
            server.wait_until(lambda: listens(port), START_SECONDS)
            yield port
        finally:
            server.stop()
    finally:
        epmd.stop()


def _script() -> str:
    return next((path for path in SCRIPTS if os.access(path, os.X_OK)), "rabbitmq-server")


def _environment(directory: Path, configuration: Path, epmd_port: int, node_port: int) -> dict[str, str]:
    return {
        "HOME": str(directory),  # where the cookie is
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "shmq-bench@localhost",
        "RABBITMQ_DIST_PORT": str(node_port),
        "RABBITMQ_CONFIG_FILE": str(configuration),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
    }
