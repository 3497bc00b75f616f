"""What each destination is sent: the pipeline's outputs, unless its section says what that PACS and viewer can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from service.pipelines import Pipeline
    from service.sections import Peer

SENDER = "@sender"
REFUSAL = "refusal"
"""The note of a refused study: `report_refused` alone decides whether it is written, so every destination gets it."""


def destinations_of(pipeline: Pipeline, calling_ae: str) -> tuple[str, ...]:
    """Return where the results of a study go, with `@sender` made the AE that sent it."""
    return tuple(f"@{calling_ae}" if name == SENDER else name for name in pipeline.destinations)


def outputs_for(destination: str, pipeline: Pipeline, peers: Mapping[str, Peer]) -> tuple[str, ...]:
    """Return the outputs that one destination is sent.

    Args:
        destination: name of a `[peers.NAME]` section, or `@AE TITLE`.
        pipeline: whose results they are.
        peers: every section.
    """
    peer = peers.get(destination)
    if peer is None and destination.startswith("@"):
        peer = next((each for each in peers.values() if each.ae_title == destination[1:]), None)
    return peer.outputs if peer is not None and peer.outputs else pipeline.outputs


def kinds_for(destination: str, pipeline: Pipeline, peers: Mapping[str, Peer]) -> frozenset[str]:
    """Return the kinds of objects that are delivered to one destination."""
    return frozenset({*outputs_for(destination, pipeline, peers), REFUSAL})


def outputs_to_build(destinations: Iterable[str], pipeline: Pipeline, peers: Mapping[str, Peer]) -> tuple[str, ...]:
    """Return every output that any of the destinations is sent, each once, in their order."""
    wanted = [output for name in destinations for output in outputs_for(name, pipeline, peers)]
    return tuple(dict.fromkeys(wanted))
