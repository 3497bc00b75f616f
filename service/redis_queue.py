"""kombu's queue in Redis, with two faults mended: a worker goes on consuming whatever message it meets, and this one.

Redis dies while a task runs. kombu then fails to acknowledge the message, logs that, and keeps the message among those
that it may not exceed: with one message at a time the worker asks for no other, so it never notices that the connection
is gone, never connects again, and lives without work for ever.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

from kombu.transport import redis, virtual

from service.dropped_messages import Dropping, note_dropped

_NO_JSON = (ValueError, TypeError, RecursionError)


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

    def _brpop_read(self, **options: Any) -> Any:
        """Read the next message; what is no JSON is taken for none."""
        try:
            return super()._brpop_read(**options)
        except _NO_JSON as error:
            note_dropped(error)
            raise Empty from None


class SentinelChannel(Channel, redis.SentinelChannel):  # type: ignore[misc]
    """Likewise, for Redis Sentinel."""


class Transport(Dropping, redis.Transport):  # type: ignore[misc]
    """kombu's, with our channel."""

    Channel = Channel


class SentinelTransport(Dropping, redis.SentinelTransport):  # type: ignore[misc]
    """Likewise, for Redis Sentinel."""

    Channel = SentinelChannel
