"""C-FIND in the study root model (PS3.4 section C.6.2): what a peer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_nodes.contexts import UNCOMPRESSED
from dicom_nodes.requestor import associated
from dicom_nodes.status import SUCCESS, describe
from service.errors import DestinationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicom_nodes.requestor import Destination

FIND = str(StudyRootQueryRetrieveInformationModelFind)
_PENDING = frozenset({0xFF00, 0xFF01})
MAXIMUM_MATCHES = 50_000


def find(to: Destination, level: str, keys: Mapping[str, str]) -> list[Dataset]:
    """Ask for what matches.

    Args:
        to: the peer.
        level: STUDY, SERIES or IMAGE.
        keys: values to match, by keyword; empty ones are asked for.

    Returns:
        One data set per match.

    Raises:
        DestinationError: out of reach, refused or failed; the message says which.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    matches: list[Dataset] = []
    with associated(to, [build_context(FIND, list(UNCOMPRESSED))]) as association:
        for answer, match in association.send_c_find(identifier, FIND):
            if "Status" not in answer:
                raise DestinationError("the peer gave no answer to the query")
            if answer.Status in _PENDING and match is not None:
                matches.append(match)
            elif answer.Status not in _PENDING | {SUCCESS}:
                raise DestinationError(f"the peer could not answer the query: {describe(answer.Status)}")
            if len(matches) > MAXIMUM_MATCHES:
                raise DestinationError("the peer finds more than can be read")
    return matches
