from __future__ import annotations

import pytest

from service.destinations import destinations_of, kinds_for, outputs_for, outputs_to_build
from service.pipelines import Pipeline
from service.sections import Peer

PIPELINE = Pipeline(
    name="chest",
    title="Chest",
    version="1",
    input="image",
    model="m",
    modalities=("DX",),
    explainers=("grad-cam",),
    outputs=("secondary-capture", "structured-report"),
    destinations=("pacs", "@sender"),
)
PEERS = {
    "pacs": Peer(ae_title="PACS", host="h", port=104),
    "old": Peer(ae_title="OLD", host="h", port=104, outputs=("secondary-capture-uncompressed", "text-report")),
}


def test_the_sender_becomes_its_ae_title() -> None:
    assert destinations_of(PIPELINE, "CT1") == ("pacs", "@CT1")


@pytest.mark.parametrize(
    ("destination", "outputs"),
    [
        ("pacs", ("secondary-capture", "structured-report")),
        ("old", ("secondary-capture-uncompressed", "text-report")),
        ("@OLD", ("secondary-capture-uncompressed", "text-report")),
        ("@UNKNOWN", ("secondary-capture", "structured-report")),
    ],
)
def test_a_destination_with_a_profile_gets_what_it_can_show(destination: str, outputs: tuple[str, ...]) -> None:
    assert outputs_for(destination, PIPELINE, PEERS) == outputs


def test_every_output_that_anybody_gets_is_built_once() -> None:
    assert outputs_to_build(("pacs", "@OLD", "@PACS"), PIPELINE, PEERS) == (
        "secondary-capture",
        "structured-report",
        "secondary-capture-uncompressed",
        "text-report",
    )


def test_the_note_of_a_refusal_goes_everywhere() -> None:
    assert kinds_for("old", PIPELINE, PEERS) == {"secondary-capture-uncompressed", "text-report", "refusal"}
