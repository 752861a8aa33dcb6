"""The transport: how Kombu finds a daemon, waits for it, and what it may expect of it.

Owns: `kombu.transport.base.Transport`'s interface. Does not own: connections and channels.
Invariants: nothing of an event loop is kept here, because a loop is made anew after each error; nothing waits that a
connection does not wait for.
"""

from typing import Any, Final

from amqp import exceptions as amqp
from kombu.transport import base

from shmq._version import __version__
from shmq.errors import InvalidArgument, ShmqError
from shmq_clients.connection import connect
from shmq_clients.kombu.channel import Channel
from shmq_clients.kombu.connection import Connection
from shmq_clients.kombu.errors import closed, unreachable
from shmq_clients.kombu.options import options_of
from shmq_clients.kombu.place import DEFAULT_URL, url_for
from shmq_clients.link import SLICE

EVENTS_MAX: Final = 64  # handed out before the event loop has its turn
CONNECT_TIMEOUT: Final = 5.0  # Kombu's own


class Management(base.Management):  # type: ignore[misc] # kombu has no types
    """What Kombu calls a manager (`Connection.manager`), as far as it says what that is."""

    def get_bindings(self) -> list[dict[str, Any]]:
        """Return all bindings."""
        bindings: list[dict[str, Any]] = self.transport.client.default_channel.get_bindings()
        return bindings


class Transport(base.Transport):  # type: ignore[misc] # kombu has no types
    """`shmq://`, `shmq:///path/of.sock`."""

    can_parse_url = True
    default_port = None
    driver_type = "amqp"  # by this word Celery knows gossip, mingle and remote control to work
    driver_name = "shmq"

    Management = Management

    connection_errors = (amqp.ConnectionError, OSError)
    channel_errors = (amqp.ChannelError,)
    recoverable_connection_errors = (amqp.RecoverableConnectionError, amqp.MessageNacked, OSError)
    recoverable_channel_errors = (amqp.RecoverableChannelError,)

    implements = base.Transport.implements.extend(
        asynchronous=True,
        batch_publish=True,
        exchange_type=frozenset(("direct", "topic", "fanout", "headers")),
        heartbeats=False,  # the kernel tells who has died
    )
    supports_batch_publish = True

    def driver_version(self) -> str:
        return __version__

    @property
    def default_connection_params(self) -> dict[str, Any]:
        """What stands in `Connection.info` where nothing was said."""
        return {"hostname": DEFAULT_URL, "port": None, "virtual_host": "/"}

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        """Return the URL; there are no passwords in ours."""
        return url_for(self.client) if self.client is not None else uri

    # -- connections --------------------------------------------------------------------------------------------------

    def establish_connection(self) -> Connection:
        """Connect. Raises an OSError when nobody answers, ValueError for a URL or an option that can't be."""
        client = self.client
        try:
            options = options_of(client.transport_options)
            connection = connect(
                url_for(client),
                mode=options.mode,
                timeout=client.connect_timeout or CONNECT_TIMEOUT,
                reconnect_timeout=options.reconnect_timeout,
            )
        except InvalidArgument as error:
            raise ValueError(str(error)) from error
        except ShmqError as error:
            raise unreachable(error) from error
        return Connection(client, connection, options)

    def close_connection(self, connection: Connection) -> None:
        connection.client = None
        connection.close()

    def create_channel(self, connection: Connection) -> Channel:
        return connection.channel()

    def close_channel(self, channel: Channel) -> None:
        channel.close()

    def verify_connection(self, connection: Connection) -> bool:
        return connection.connected

    def drain_events(self, connection: Connection, **keywords: Any) -> None:  # noqa: ANN401 - `timeout`
        """Wait for one event."""
        connection.drain_events(**keywords)

    def _collect(self, connection: Connection | None) -> None:
        """Let go of a connection that is lost, or a parent's."""
        if connection is not None:
            connection.collect()

    def qos_semantics_matches_spec(self, connection: Connection) -> bool:
        """Say False: Celery is to set its window on the channel, where it may change at any time."""
        return False

    def get_heartbeat_interval(self, connection: Connection) -> int:
        return 0

    # -- event loops --------------------------------------------------------------------------------------------------

    def register_with_event_loop(self, connection: Connection, loop: Any) -> None:  # noqa: ANN401 - a kombu Hub
        """Have what comes handed out by the loop; and look now and then, because wake-ups are hints."""
        connection.leave_loop()
        loop.add_reader(connection.fileno(), self.on_readable, connection, loop)
        connection.on_loop = loop.call_repeatedly(SLICE, self.on_readable, connection, loop)

    def unregister_from_event_loop(self, connection: Connection, loop: Any) -> None:  # noqa: ANN401 - a kombu Hub
        if connection.connected:
            loop.remove_reader(connection.fileno())
        connection.leave_loop()

    def on_readable(self, connection: Connection, loop: Any) -> None:  # noqa: ANN401 - a kombu Hub; Kombu's form
        """Hand out some; what is left keeps the descriptor readable."""
        if not connection.connected:
            raise closed()
        connection.dispatch(EVENTS_MAX)
