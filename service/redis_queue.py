"""kombu's queue in Redis, with one fault mended: a worker whose acknowledgement fails goes on consuming.

Redis dies while a task runs. kombu then fails to acknowledge the message, logs that, and keeps the message among those
that it may not exceed: with one message at a time the worker asks for no other, so it never notices that the connection
is gone, never connects again, and lives without work for ever.
"""

from __future__ import annotations

from kombu.transport import redis, virtual


class QoS(redis.QoS):  # type: ignore[misc]  # kombu has no types
    """Counts a message as settled even when Redis cannot hear of it; the ledger says what is left to do."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message."""
        try:
            super().ack(delivery_tag)
        finally:
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or drop it."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        finally:
            virtual.QoS.ack(self, delivery_tag)


class Channel(redis.Channel):  # type: ignore[misc]
    """kombu's, with our accounting."""

    QoS = QoS


class SentinelChannel(redis.SentinelChannel):  # type: ignore[misc]
    """Likewise, for Redis Sentinel."""

    QoS = QoS


class Transport(redis.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):  # type: ignore[misc]
    """Likewise, for Redis Sentinel."""

    Channel = SentinelChannel
