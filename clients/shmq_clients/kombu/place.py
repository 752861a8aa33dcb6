"""Which daemon a Kombu connection means, in the two forms in which Kombu says it.

Owns: our URL, whole (`Connection("shmq:///run/a.sock")`) or taken apart by Kombu (`Connection.switch`, a bare
hostname). Does not own: what a URL may be (shmq_clients.url).
"""

from pathlib import Path
from typing import Any, Final

from shmq_clients.url import SCHEME, url_of

HERE: Final = (None, "", "localhost")
DEFAULT_URL: Final = f"{SCHEME}://"


def url_for(client: Any) -> str:  # noqa: ANN401 - a kombu.Connection
    """Return the URL that this Kombu connection was made with; what can't be meant is refused where it is parsed."""
    hostname = client.hostname
    if isinstance(hostname, str) and hostname.startswith(f"{SCHEME}:"):
        return hostname
    path = (client.virtual_host or "/").strip("/")
    if hostname in HERE:
        return url_of(Path(f"/{path}")) if path else DEFAULT_URL
    if not hostname.startswith("/"):
        return f"{DEFAULT_URL}{hostname}/{path}"
    return f"{url_of(Path(hostname))}?virtual_host={path or '/'}"
