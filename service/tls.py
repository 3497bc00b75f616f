"""TLS by BCP 195 (RFC 8996, RFC 9325; PS3.15 sections B.9 to B.13): TLS 1.2 and 1.3, AEAD, both sides known."""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from service.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

log = logging.getLogger(__name__)

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
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


class ServerContexts:
    """The context of a server, made anew when one of its files changed: lists and certificates end and are replaced."""

    def __init__(self, *, certificate: str, key: str, trusted: str, crl: str = "") -> None:
        """Read the files.

        Raises:
            SettingsError: a file is missing or unusable; the message says which.
        """
        self._make = partial(server_context, certificate=certificate, key=key, trusted=trusted, crl=crl)
        self._paths = [Path(path) for path in (certificate, key, trusted, crl) if path]
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._context = self._make()

    def current(self) -> ssl.SSLContext:
        """Return the context; the one before while a file cannot be used, for it may be half written."""
        with self._lock:
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                try:
                    self._context = self._make()
                except SettingsError as error:
                    log.error("changed TLS files are not used, the ones before are: %s", error)  # noqa: TRY400
                else:
                    log.info("changed TLS files are used from now on")
            return self._context

    def _stamps(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._paths:
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return found


def server_context(*, certificate: str, key: str, trusted: str, crl: str = "") -> ssl.SSLContext:
    """Return a context that accepts only peers whose certificate a trusted one signed, and no list revokes.

    Raises:
        SettingsError: a file is missing or unusable; the message says which.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, trusted, crl)
    context.verify_mode = ssl.CERT_REQUIRED
    # Peers connect anew for each study and resume nothing; a ticket would only be a secret more to keep.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    return context


def client_context(
    *, trusted: str, certificate: str = "", key: str = "", crl: str = "", check_name: bool = True
) -> ssl.SSLContext:
    """Return a context that verifies the server's chain, and shows our certificate if there is one.

    Args:
        trusted: certificates that sign servers' ones; empty takes the system's.
        certificate: ours.
        key: ours.
        crl: PEM file of revocation lists; empty looks at none.
        check_name: the certificate must be for the host's name or address. Do without only where the caller
            compares the certificate itself.

    Raises:
        SettingsError: a file is missing or unusable; the message says which.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, trusted, crl)
    context.check_hostname = check_name
    return context


def _context(protocol: int, certificate: str, key: str, trusted: str, crl: str) -> ssl.SSLContext:
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
    with _named(crl):
        if crl:
            revocation_ends(crl)
            context.load_verify_locations(crl)
            # A certificate whose issuer has no list, or one that has ended, is refused: nobody knows about it.
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
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


def revocation_ends(path: str) -> list[tuple[str, datetime]]:
    """Read until when revocation lists hold.

    Returns:
        (issuer's common name, end) of each list in a PEM file.

    Raises:
        SettingsError: the file holds no revocation list in PEM form.
    """
    try:
        lists = [x509.load_pem_x509_crl(block) for block in _CRL.findall(Path(path).read_bytes())]
    except (OSError, ValueError):
        lists = []
    if not lists:
        raise SettingsError(f"{path} holds no revocation list in PEM form")
    found = []
    for entry in lists:
        names = entry.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        end = entry.next_update_utc or datetime.max.replace(tzinfo=UTC)
        found.append((str(names[0].value) if names else "", end))
    return found
