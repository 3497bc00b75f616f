"""Wake-up calls: the names of tasks and queues, and the Celery application that carries job ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES

from service.errors import SettingsError
from service.files import make_directory

if TYPE_CHECKING:
    from service.settings import Settings

PROCESS = "pellucid.process"
QUEUES = ("stat", "routine")
_FOLDER = "pellucid-folder"
_TRANSPORTS = {
    _FOLDER: "service.folder_queue:Transport",
    "redis": "service.redis_queue:Transport",
    "rediss": "service.redis_queue:Transport",
    "sentinel": "service.redis_queue:SentinelTransport",
}
"""Ours, by the scheme of the broker's URL; kombu imports one when it is used."""


def make_app(settings: Settings) -> Celery:
    """Build the Celery application. JSON only: a pickle message is refused.

    Raises:
        SettingsError: there is no such kind of broker.
    """
    TRANSPORT_ALIASES.update(_TRANSPORTS)
    url = settings.broker_url
    kind = url.partition(":")[0]
    if kind not in TRANSPORT_ALIASES:
        raise SettingsError(f"queue.broker_url: '{kind}' is no kind of broker; it is written like redis://host:6379/0")
    broker = f"{_FOLDER}://localhost" if url.startswith("filesystem:") else url
    app = Celery("pellucid", broker=broker, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,  # the ledger's sweep brings the job back, with its attempts counted
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_concurrency=1,
        task_default_queue="routine",
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(settings),
    )
    return app


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker_url.startswith("filesystem:"):
        folder = settings.state.directory.absolute() / "queue"
        control = folder / "control"
        make_directory(control)
        return {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(control),
            "polling_interval": settings.queue.polling_interval_s,
        }
    return {
        # Longer than any task, so that Redis never redelivers one that still runs.
        "visibility_timeout": settings.worker.task_time_limit_s * 2 + 60,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "unacked_restore_interval": 5,
        # `QUEUES` in that order: stat before routine
        "queue_order_strategy": "priority",
    }


def enqueue(app: Celery, job_id: str, priority: str) -> None:
    """Wake a worker for a job. Only the job id crosses the broker.

    Raises:
        kombu.exceptions.OperationalError: the broker is out of reach; the sweep will call again.
    """
    app.send_task(PROCESS, args=[job_id], queue=priority, retry=False, ignore_result=True)


def waiting(app: Celery) -> int:
    """Count the calls that no worker has taken.

    Raises:
        Exception: the broker is out of reach; of which type depends on the broker's client.
    """
    with app.connection_for_read() as connection:
        return sum(_length(connection.default_channel, queue) for queue in QUEUES)


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:
        return 0  # nobody has used this queue yet
