"""TLS by BCP 195 (RFC 8996, RFC 9325; PS3.15 sections B.9 to B.13): TLS 1.2 and 1.3, AEAD, both sides known."""

from __future__ import annotations

import hashlib
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from service.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Of TLS 1.2 the suites with forward secrecy and AEAD alone (RFC 9325 section 4.2); TLS 1.3 has no others.
SUITES = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for signature in ("ECDSA", "RSA")
    for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305")
)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A peer's certificate, after its chain was verified."""

    fingerprint: str
    """SHA-256 of the certificate, lower-case hexadecimal without colons."""
    subject: str
    """RFC 4514, for example `CN=CT1,O=Hospital`."""

    def matches(self, expected: str) -> bool:
        """Compare with a setting: a fingerprint, with or without colons, or a subject."""
        return expected == self.subject or expected.replace(":", "").lower() == self.fingerprint


def server_context(*, certificate: str, key: str, trusted: str) -> ssl.SSLContext:
    """Return a context that accepts only peers whose certificate a trusted one signed.

    Raises:
        SettingsError: a file is missing or unusable; the message says which.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    # Peers connect anew for each study and resume nothing; a ticket would only be a secret more to keep.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(*, trusted: str, certificate: str = "", key: str = "", check_name: bool = True) -> ssl.SSLContext:
    """Return a context that verifies the server's chain, and shows our certificate if there is one.

    Args:
        trusted: certificates that sign servers' ones; empty takes the system's.
        certificate: ours.
        key: ours.
        check_name: the certificate must be for the host's name or address. Do without only where the caller
            compares the certificate itself.

    Raises:
        SettingsError: a file is missing or unusable; the message says which.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, trusted)
    context.check_hostname = check_name
    return context


def _context(protocol: int, certificate: str, key: str, trusted: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    with _named(certificate, key):
        if certificate:
            context.load_cert_chain(certificate, key or None, password=_no_password)
    with _named(trusted):
        if trusted:
            context.load_verify_locations(trusted)
        elif protocol == ssl.PROTOCOL_TLS_CLIENT:
            context.load_default_certs()
    return context


@contextmanager
def _named(*paths: str) -> Iterator[None]:
    """Say which file an error is about: OpenSSL does not."""
    try:
        for path in filter(None, paths):
            with Path(path).open("rb"):
                pass
        yield
    except (OSError, ValueError) as error:
        files = " with ".join(filter(None, paths))
        raise SettingsError(f"{files} cannot be used for TLS: {_reason(error)}") from None


def _no_password() -> str:
    # Otherwise OpenSSL would ask at the terminal.
    raise ValueError("the key has a password; store it without one, readable by this user alone")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not in PEM form"
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)


def identity_of(connection: ssl.SSLSocket) -> Identity | None:
    """Read the peer's certificate of an established connection; None when it showed none."""
    encoded = connection.getpeercert(binary_form=True)
    if not encoded:
        return None
    certificate = x509.load_der_x509_certificate(encoded)
    return Identity(
        fingerprint=hashlib.sha256(encoded).hexdigest(),
        subject=certificate.subject.rfc4514_string(),
    )


def expiries(paths: Iterable[str]) -> list[tuple[str, str, datetime]]:
    """Read when certificates end.

    Returns:
        (file, common name, end) of each certificate in each PEM file.

    Raises:
        SettingsError: a file is no PEM file of certificates.
    """
    found = []
    for path in paths:
        try:
            certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
        except (OSError, ValueError):
            raise SettingsError(f"{path} holds no certificate in PEM form") from None
        for certificate in certificates:
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            found.append((path, str(names[0].value) if names else "", certificate.not_valid_after_utc.astimezone(UTC)))
    return found
