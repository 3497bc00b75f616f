"""Answers an A-ASSOCIATE-RQ (PS3.8 sections 7.1 and 9.3, PS3.7 annex D.3), taken apart and put together by hand.

Anybody who reaches the port may send one. A general decoder takes ten seconds for a request of one MB, and meets
garbage with whatever its parts raise; this one walks over it once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dicom_nodes.contexts import IMPLICIT_LITTLE_ENDIAN, MAXIMUM_CONTEXTS
from dicom_nodes.dimse import ProtocolError
from dicom_nodes.headers import is_uid
from dicom_nodes.objects.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_nodes.requests import Rejection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_nodes.contexts import Acceptable

_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
_PROTOCOL_VERSION = 0x0001
_APPLICATION_ITEM, _PROPOSAL_ITEM, _RESULT_ITEM, _USER_ITEM = 0x10, 0x20, 0x21, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS, _ROLES, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x54, 0x55
_ACCEPTED, _REFUSED_BY_USER, _UNKNOWN_ABSTRACT_SYNTAX, _UNKNOWN_TRANSFER_SYNTAXES = 0, 1, 3, 4
"""Results of a presentation context (PS3.8 table 9-18)."""
_FIXED = struct.Struct(">BBLHH16s16s32x")
_ITEM = struct.Struct(">BBH")
UNSUPPORTED_VERSION = Rejection(result=1, source=2, diagnostic=2, reason="another protocol version than 1")
UNSUPPORTED_APPLICATION_CONTEXT = Rejection(result=1, source=1, diagnostic=2, reason="another application context")
NO_CALLING_TITLE = Rejection(result=1, source=1, diagnostic=3, reason="no calling AE title")


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A presentation context that a peer proposes."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a peer asks for. UIDs are as it wrote them: unchecked."""

    calling_ae: str
    called_ae: str
    titles: bytes
    """The 32 bytes of both AE titles, called first, to be repeated in the answer (PS3.8 table 9-17)."""
    proposals: tuple[Proposal, ...]
    roles: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """(SCU, SCP) that the peer offers to be, by SOP class."""
    maximum_pdu_bytes: int
    """The longest PDU that the peer takes; 0 is no limit."""
    rejection: Rejection | None
    """What the request itself gives reason to reject it for."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What was negotiated."""

    pdu: bytes
    """A-ASSOCIATE-AC."""
    contexts: dict[int, tuple[str, str]]
    """(SOP class, transfer syntax) of each accepted context, by its identifier."""


def read_request(pdu: bytes | bytearray) -> Request:
    """Read an A-ASSOCIATE-RQ; items that only offer what we do not do are passed over.

    Raises:
        ProtocolError: it is none.
    """
    if len(pdu) < _FIXED.size:
        raise ProtocolError("an A-ASSOCIATE-RQ that is too short")
    _, _, _, version, _, called, calling = _FIXED.unpack_from(pdu)
    application = ""
    proposals: list[Proposal] = []
    maximum, roles = 0, dict[str, tuple[bool, bool]]()
    for kind, content in _items(memoryview(pdu)[_FIXED.size :]):
        if kind == _APPLICATION_ITEM:
            application = _uid(content)
        elif kind == _PROPOSAL_ITEM:
            proposals.append(_proposal(content))
            if len(proposals) > MAXIMUM_CONTEXTS:
                raise ProtocolError("more presentation contexts than there are identifiers")
        elif kind == _USER_ITEM:
            maximum, roles = _user_information(content)
    if len({proposal.context_id for proposal in proposals}) < len(proposals):
        raise ProtocolError("a presentation context identifier that is used twice")
    return Request(
        calling_ae=_title(calling),
        called_ae=_title(called),
        titles=bytes(called + calling),
        proposals=tuple(proposals),
        roles=roles,
        maximum_pdu_bytes=maximum,
        rejection=_rejection(version, application, _title(calling)),
    )


def agree(request: Request, acceptable: Acceptable, *, maximum_pdu_bytes: int) -> Agreement:
    """Negotiate presentation contexts and roles.

    Args:
        request: what the peer asks for.
        acceptable: what we accept.
        maximum_pdu_bytes: longest PDU that we take.
    """
    contexts: dict[int, tuple[str, str]] = {}
    items = [_item(_APPLICATION_ITEM, _APPLICATION_CONTEXT.encode())]
    for proposal in request.proposals:
        result, syntax = _decide(proposal, request, acceptable)
        if result == _ACCEPTED:
            contexts[proposal.context_id] = (proposal.abstract_syntax, syntax)
        content = struct.pack(">BBBB", proposal.context_id, 0, result, 0)
        items.append(_item(_RESULT_ITEM, content + _item(_TRANSFER_SYNTAX, syntax.encode("ascii"))))
    classes = {sop_class for sop_class, _ in contexts.values() if sop_class in acceptable.both_roles}
    user = [
        _item(_MAXIMUM_LENGTH, struct.pack(">L", maximum_pdu_bytes)),
        _item(_IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode()),
        *(_granted(sop_class, request.roles[sop_class]) for sop_class in sorted(classes & request.roles.keys())),
        _item(_IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
    ]
    body = struct.pack(">HH", _PROTOCOL_VERSION, 0) + request.titles + bytes(32)
    body += b"".join(items) + _item(_USER_ITEM, b"".join(user))
    return Agreement(pdu=struct.pack(">BBL", 2, 0, len(body)) + body, contexts=contexts)


def reject(rejection: Rejection) -> bytes:
    """Encode an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    return struct.pack(">BBLBBBB", 3, 0, 4, 0, rejection.result, rejection.source, rejection.diagnostic)


def _decide(proposal: Proposal, request: Request, acceptable: Acceptable) -> tuple[int, str]:
    """Return the result of a context and its transfer syntax, which means nothing where it is not accepted."""
    proposed = next(filter(is_uid, proposal.transfer_syntaxes), IMPLICIT_LITTLE_ENDIAN)
    if proposal.abstract_syntax not in acceptable.classes:
        return _UNKNOWN_ABSTRACT_SYNTAX, proposed
    # The sender's order counts: what it names first is what it has, and it is kept as received.
    known = next((syntax for syntax in proposal.transfer_syntaxes if syntax in acceptable.syntaxes), None)
    if known is None:
        return _UNKNOWN_TRANSFER_SYNTAXES, proposed
    if proposal.abstract_syntax in acceptable.both_roles and request.roles.get(proposal.abstract_syntax) == (0, 0):
        return _REFUSED_BY_USER, proposed
    return _ACCEPTED, known


def _rejection(version: int, application: str, calling: str) -> Rejection | None:
    if not version & _PROTOCOL_VERSION:
        return UNSUPPORTED_VERSION
    if application != _APPLICATION_CONTEXT:
        return UNSUPPORTED_APPLICATION_CONTEXT
    return None if calling else NO_CALLING_TITLE


def _items(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Walk over items; what goes beyond its surroundings is an error."""
    position = 0
    while position < len(content):
        if len(content) - position < _ITEM.size:
            raise ProtocolError("an A-ASSOCIATE-RQ with half an item")
        kind, _, length = _ITEM.unpack_from(content, position)
        position += _ITEM.size
        if length > len(content) - position:
            raise ProtocolError("an A-ASSOCIATE-RQ with an item that ends early")
        yield kind, content[position : position + length]
        position += length


def _proposal(content: memoryview) -> Proposal:
    if len(content) < 4 or not content[0] % 2:  # noqa: PLR2004 -- PS3.8 table 9-13
        raise ProtocolError("a presentation context without an odd identifier")
    syntaxes = list(_items(content[4:]))
    abstract = [_uid(value) for kind, value in syntaxes if kind == _ABSTRACT_SYNTAX]
    return Proposal(
        context_id=content[0],
        # None or several are no abstract syntax that anybody knows.
        abstract_syntax=abstract[0] if len(abstract) == 1 else "",
        transfer_syntaxes=tuple(_uid(value) for kind, value in syntaxes if kind == _TRANSFER_SYNTAX),
    )


def _user_information(content: memoryview) -> tuple[int, dict[str, tuple[bool, bool]]]:
    """Return the longest PDU that the peer takes and the roles it offers (PS3.7 annex D.3.3)."""
    maximum, roles = 0, dict[str, tuple[bool, bool]]()
    for kind, value in _items(content):
        if kind == _MAXIMUM_LENGTH:
            if len(value) != 4:  # noqa: PLR2004 -- PS3.8 table D.1-1
                raise ProtocolError("a maximum length that is none")
            maximum = int.from_bytes(value, "big")
        elif kind == _ROLES:
            length = int.from_bytes(value[:2], "big")
            if len(value) != length + 4:
                raise ProtocolError("a role selection that is none")
            roles[_uid(value[2 : 2 + length])] = (value[-2] == 1, value[-1] == 1)
    return maximum, roles


def _granted(sop_class: str, offered: tuple[bool, bool]) -> bytes:
    uid = sop_class.encode()
    return _item(_ROLES, struct.pack(">H", len(uid)) + uid + bytes(offered))


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, 0, len(content)) + content


def _uid(value: memoryview) -> str:
    return bytes(value).decode("latin-1").rstrip(" \x00")


def _title(value: bytes) -> str:
    """Return an AE title (PS3.5 section 6.2): it goes into logs and the ledger, so whatever is no title ends here.

    Some devices fill it up with zeros.
    """
    text = value.decode("latin-1").strip(" \x00")
    if not (text.isascii() and (text.isprintable() or not text)) or "\\" in text:
        raise ProtocolError("an AE title that is none")
    return text
