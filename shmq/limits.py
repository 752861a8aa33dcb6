"""Bounds that both ends know. Units stand last in the names. What the configuration may lower is not here.

Invariant: everything that arrives from another process is compared with one of these before memory is taken for it.
"""

from typing import Final

PROTOCOL: Final = 1  # number of the wire protocol (docs/PROTOCOL.md)

# Names: queues, exchanges, routing keys, consumer tags (AMQP 0-9-1: shortstr).
NAME_BYTES_MAX: Final = 255

# Frames. A length counts what follows the four bytes that hold it.
LENGTH_BYTES: Final = 4
HELLO_FRAME_BYTES_MAX: Final = 4096  # the first frame, of a peer nobody knows yet
CONTROL_FRAME_BYTES_MAX: Final = 1 << 20
BODY_BYTES_MAX: Final = 1 << 30  # as in the core
BODY_FRAME_BYTES_MAX: Final = BODY_BYTES_MAX + (1 << 18)  # one largest body with everything around it
BATCH_BYTES_MAX: Final = 16 << 20  # bodies in one frame that carries several (a single larger body travels alone)
BATCH_MESSAGES_MAX: Final = 65_536  # bodies, deliveries or delivery tags in one frame
DELIVERIES_MAX: Final = 128  # in one frame of the broker: nobody waits long for another's batch
DELIVERIES_BYTES: Final = 1 << 20  # of bodies, after which it ends a frame
CHANNELS_MAX: Final = 2047  # of one client, as RabbitMQ has it
CONSUMERS_MAX: Final = 8192  # of one client
WAITING_GETS_MAX: Final = 1024  # of one client; more are refused
PAGE_ENTRIES_MAX: Final = 500  # queues in one frame of a listing
ALARMS_TOLD_MAX: Final = 256  # in one status

# Descriptors (SCM_RIGHTS).
FRAME_DESCRIPTORS_MAX: Final = 3
PENDING_DESCRIPTORS_MAX: Final = 12  # received, their frame not yet complete

# What a message carries beside its body.
ENVELOPE_BYTES_MAX: Final = (1 << 16) - 1  # as in the core
HEADERS_DEPTH_MAX: Final = 32  # containers in containers
ARGUMENTS_MAX: Final = 256  # of a queue, an exchange, a binding
ARGUMENTS_BYTES_MAX: Final = 1 << 18  # of all of them together, so that every answer which names them fits in a frame
TEXT_BYTES_MAX: Final = 4096  # of an error, a reason; and of a text argument

# Numbers.
SLOTS_MAX: Final = (1 << 23) - 2  # messages in one queue, as in the core
LEVELS_MAX: Final = 256
PRIORITY_MAX: Final = LEVELS_MAX - 1
OWNERS_MAX: Final = 65_535
PREFETCH_MAX: Final = (1 << 16) - 1  # AMQP 0-9-1: short
SEQ_MAX: Final = (1 << 32) - 1
DELIVERY_TAG_MAX: Final = (1 << 63) - 1
COUNT_MAX: Final = (1 << 63) - 1
TIME_NS_MAX: Final = (1 << 62) - 1  # 146 years
TIME_MS_MAX: Final = TIME_NS_MAX // 1_000_000

# The first seconds of a session, and the last.
HELLO_TIMEOUT_SECONDS: Final = 2.0
FRAME_PROGRESS_SECONDS: Final = 5.0  # a half frame must grow
RESUME_SECONDS: Final = 10.0  # a lost session may come back
