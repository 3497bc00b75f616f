"""`pellucid conformance`: prints the DICOM Conformance Statement (PS3.2 annex A) of this version and these settings."""

from __future__ import annotations

from importlib.metadata import version
from string import Template
from typing import TYPE_CHECKING

import click

from dicom_nodes import conformance_tables as tables
from dicom_nodes.conformance_text import STATEMENT
from dicom_nodes.objects import codes, identity
from dicom_nodes.sameness import ABOUT_STORING, RECONCILED
from service import tls
from service.cli import settings_of
from service.pipelines import SERIES_NUMBERS

if TYPE_CHECKING:
    from service.settings import Settings


@click.command()
@click.pass_context
def conformance(ctx: click.Context) -> None:
    """Print the DICOM Conformance Statement for these settings, as Markdown."""
    click.echo(statement(settings_of(ctx)), nl=False)


def statement(settings: Settings) -> str:
    """Return the statement as Markdown."""
    listener, sender, web = settings.listener, settings.sender, settings.dicomweb
    return Template(STATEMENT).substitute(
        version=version("pellucid"),
        overview=tables.overview(),
        web_services=tables.web_services(),
        accepted_classes=tables.accepted_classes(),
        accepted_syntaxes=tables.accepted_syntaxes(),
        proposed=tables.proposed(),
        created=tables.created(),
        store_statuses=tables.store_statuses(),
        sender_statuses=tables.sender_statuses(),
        reconciled=", ".join(RECONCILED),
        about_storing=", ".join(ABOUT_STORING),
        rejections=tables.rejections(),
        copied=tables.copied_attributes(),
        concepts=tables.private_concepts(),
        character_sets=tables.character_sets(),
        scheme=codes.PRIVATE_SCHEME,
        scheme_uid=codes.PRIVATE_SCHEME_UID,
        class_uid=identity.IMPLEMENTATION_CLASS_UID,
        version_name=identity.IMPLEMENTATION_VERSION_NAME,
        manufacturer=identity.MANUFACTURER,
        model_name=identity.MODEL_NAME,
        apart=SERIES_NUMBERS,
        suites=", ".join(f"`{suite}`" for suite in tls.SUITES.split(":")),
        ae_title=listener.ae_title,
        port=listener.port,
        pdu=listener.maximum_pdu_bytes,
        associations=listener.maximum_associations,
        associations_each=listener.maximum_associations_per_address,
        association_timeout=f"{listener.association_timeout_s:g}",
        network_timeout=f"{listener.network_timeout_s:g}",
        largest=listener.maximum_instance_mb,
        web_connections=web.maximum_connections,
        web_each=web.connections_each,
        web_pace=f"{web.minimum_bytes_per_s:g}",
        web_slow=f"{web.slow_timeout_s:g}",
        sender_title=sender.ae_title,
        sender_timeout=f"{sender.timeout_s:g}",
        first_retry=f"{sender.first_retry_s:g}",
        longest_retry=f"{sender.longest_retry_s:g}",
        confirm_timeout=f"{sender.confirm_timeout_s:g}",
        settings=_settings_table(settings),
    )


def _settings_table(settings: Settings) -> str:
    """List what an installer sets that concerns DICOM, by its name in the settings file."""
    sections = {"listener": settings.listener, "tls": settings.tls, "sender": settings.sender}
    rows = [
        (f"`{section}.{name}`", f"`{value!r}`")
        for section, values in sections.items()
        for name, value in values.model_dump(mode="json").items()
    ]
    return tables.table(("setting", "value"), rows)
