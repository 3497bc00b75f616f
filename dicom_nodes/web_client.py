"""Our side as DICOMweb client (PS3.18): STOW-RS, QIDO-RS and WADO-RS, without ever holding a file in memory.

Tokens and passwords are in headers only, and headers are never logged.
"""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from dicom_nodes.multipart import MultipartError, MultipartReader, boundary_of
from dicom_nodes.outgoing import SendOutcome
from dicom_nodes.status import SUCCESS, Verdict, describe, verdict
from service.errors import DestinationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dicom_nodes.multipart import PartSink
    from dicom_nodes.outgoing import SendFile

_JSON = "application/dicom+json"
_BLOCK_BYTES = 1 << 18
_MAXIMUM_ANSWER_BYTES = 16 << 20
_STORED = "00081199"
_FAILED = "00081198"
_SOP_INSTANCE = "00081155"
_FAILURE_REASON = "00081197"
_WARNING_REASON = "00081196"
_GIVE_UP = frozenset({400, 413, 415})


@dataclass(frozen=True, kw_only=True)
class WebDestination:
    """The root of a DICOMweb service, and who we are there."""

    url: str
    """Without a slash at its end."""
    timeout_s: float = 30.0
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def host(self) -> str:
        """Host of the service, for audit messages."""
        return httpx.URL(self.url).host


class _AwayError(DestinationError):
    """There was no connection at all: no other object would get through either."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a service answered."""

    status: int
    content_type: str
    content: bytes


def store(files: Sequence[SendFile], to: WebDestination) -> Generator[SendOutcome]:
    """Send files by STOW-RS (PS3.18 section 10.5), one request each: so each has an answer of its own.

    Yields:
        One outcome per file as soon as it is known.
    """
    with _session(to) as session:
        for file in files:
            yield _store(session, file)


def verify_web(to: WebDestination) -> None:
    """Ask the service for one study.

    Raises:
        DestinationError: out of reach or refused; the message says which.
    """
    query(to, "/studies", {"limit": "1"})


def query(to: WebDestination, path: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    """Search by QIDO-RS (PS3.18 section 10.6); return DICOM JSON objects.

    Raises:
        DestinationError: out of reach, refused, or no JSON.
    """
    with _session(to) as session:
        answer = _ask(session, "GET", path, params=dict(parameters), headers={"Accept": _JSON})
    if answer.status in (204, 404):
        return []
    if answer.status != httpx.codes.OK:
        raise DestinationError(f"{to.url} answered {answer.status} to a query")
    return [entry for entry in _json(answer) if isinstance(entry, dict)]


def retrieve(to: WebDestination, path: str, begin: Callable[[dict[str, str]], PartSink]) -> None:
    """Fetch every instance below a path, `/studies/UID` for example, as it is stored (PS3.18 section 10.4).

    Raises:
        DestinationError: out of reach, refused, or the answer broke off.
    """
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    try:
        with (
            _session(to) as session,
            session.stream("GET", path, headers={"Accept": accept}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise DestinationError(f"{to.url} answered {answer.status_code} to the request to retrieve")
            reader = MultipartReader(boundary_of(answer.headers.get("content-type", "")), begin)
            try:
                for block in answer.iter_bytes(_BLOCK_BYTES):
                    reader.feed(block)
            finally:
                reader.close()
    except MultipartError as error:
        raise DestinationError(f"{to.url} sent an answer that cannot be read: {error}") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _unreachable(to, error) from None
    if not reader.complete:
        raise DestinationError(f"{to.url} ended its answer in the middle")


def value(entry: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an element of a DICOM JSON object (PS3.18 annex F) as text; empty without one."""
    element = entry.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    return str(first) if isinstance(first, str | int | float) else ""


@contextmanager
def _session(to: WebDestination) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {to.token}"} if to.token else {}
    credentials = (to.user, to.password) if to.user else None
    with httpx.Client(
        base_url=to.url,
        headers=headers,
        auth=credentials,
        timeout=to.timeout_s,
        verify=to.tls if to.tls is not None else True,
        trust_env=False,
    ) as session:
        session.headers["User-Agent"] = "Pellucid"
        yield session


def _ask(session: httpx.Client, method: str, path: str, **arguments: Any) -> Answer:
    try:
        with session.stream(method, path, **arguments) as answer:
            content = bytearray()
            for block in answer.iter_bytes(_BLOCK_BYTES):
                content += block
                if len(content) > _MAXIMUM_ANSWER_BYTES:
                    raise DestinationError(f"{session.base_url} sent an answer that is too long")
            return Answer(
                status=answer.status_code,
                content_type=answer.headers.get("content-type", ""),
                content=bytes(content),
            )
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _AwayError(f"{session.base_url} is out of reach ({type(error).__name__})") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise DestinationError(f"{session.base_url} is out of reach ({type(error).__name__})") from None


def _unreachable(to: WebDestination, error: Exception) -> DestinationError:
    return DestinationError(f"{to.url} is out of reach ({type(error).__name__})")


def _store(session: httpx.Client, file: SendFile) -> SendOutcome:
    boundary = uuid.uuid4().hex
    # No parameter behind the type: Orthanc passes over parts that have one, and answers 200.
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": _JSON,
        "Content-Length": str(len(head) + file.path.stat().st_size + len(tail)),
    }
    try:
        answer = _ask(session, "POST", "/studies", content=_body(head, file.path, tail), headers=headers)
    except DestinationError as error:
        away = isinstance(error, _AwayError)
        return SendOutcome(path=file.path, verdict=Verdict.RETRY, status=None, reason=str(error), unreachable=away)
    return _outcome_of(file, answer)


def _body(head: bytes, path: Path, tail: bytes) -> Iterable[bytes]:
    yield head
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            yield block
    yield tail


def _outcome_of(file: SendFile, answer: Answer) -> SendOutcome:
    """Read a store response (PS3.18 section 10.5.3, PS3.3 table C.7-1)."""
    if answer.status in (200, 202, 409):
        try:
            (response,) = (entry for entry in _json(answer) if isinstance(entry, dict))
        except (DestinationError, ValueError):
            response = {}
        for item in _items(response, _FAILED):
            if value(item, _SOP_INSTANCE) in ("", file.sop_instance_uid):
                reason = _number(value(item, _FAILURE_REASON))
                found = verdict(reason)
                # A failure is one, whatever its number.
                return _outcome(file, Verdict.RETRY if found is Verdict.DELIVERED else found, describe(reason), reason)
        for item in _items(response, _STORED):
            if value(item, _SOP_INSTANCE) == file.sop_instance_uid:
                warning = _number(value(item, _WARNING_REASON))
                return _outcome(file, Verdict.DELIVERED, describe(warning) if warning else "", warning or SUCCESS)
        if answer.status == httpx.codes.OK and not answer.content:
            return _outcome(file, Verdict.DELIVERED, "", SUCCESS)
        return _outcome(file, Verdict.RETRY, f"the service answered {answer.status} and does not say what it stored")
    return _outcome(
        file,
        Verdict.REJECTED if answer.status in _GIVE_UP else Verdict.RETRY,
        f"the service answered {answer.status}",
    )


def _json(answer: Answer) -> list[Any]:
    if not answer.content:
        return []
    try:
        found = json.loads(answer.content)
    except ValueError:
        raise DestinationError("the service sent an answer that is no JSON") from None
    return found if isinstance(found, list) else [found]


def _items(response: Mapping[str, Any], tag: str) -> list[dict[str, Any]]:
    element = response.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [entry for entry in values or [] if isinstance(entry, dict)]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _outcome(file: SendFile, result: Verdict, reason: str, status: int | None = None) -> SendOutcome:
    return SendOutcome(path=file.path, verdict=result, status=status, reason=reason)
