"""shmq as a transport of Kombu, and so of Celery: `broker_url = "shmq://"` (docs/CELERY.md).

Owns: what Kombu asks of a transport (`kombu.transport.base`), in terms of our blocking client. Does not own: exchanges,
queues and acks, which are the broker's; the alias `shmq` (kombu_alias.py), which importing this sets.
"""

from shmq_clients import kombu_alias
from shmq_clients.kombu.transport import Transport

__all__ = ["Transport", "kombu_alias"]
