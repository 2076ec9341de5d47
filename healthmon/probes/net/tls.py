"""TLS settings that probes share, and certificates in plain words.

An SSLContext costs about 15 ms to make (it reads the machine's authorities), so there is one for
each setting.  No session is kept and no ticket asked for: each probe is a full handshake, as a new
client's would be.  `_lock` guards the contexts and the certificates read; any thread may call.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

MAX_CONTEXTS = 64
MAX_CERTIFICATES = 4_096
MAX_NAMES = 20

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class ContextError(ValueError):
    """The TLS setting cannot be used; the text names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a peer's certificate says of itself; texts are bounded."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins_us: int
    expires_us: int

    @property
    def expires(self) -> dt.datetime:
        return _EPOCH + dt.timedelta(microseconds=self.expires_us)


class Contexts:
    """One client context for each setting, made when it is first asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}
        self._certificates: dict[bytes, Certificate] = {}

    def get(
        self, verify: bool = True, ca_file: str = "", *, alpn: Sequence[str] = ()
    ) -> ssl.SSLContext:
        """The context for a setting.  A changed `ca_file` is read again.  Raises ContextError."""
        key = (verify, ca_file, tuple(alpn), _version(ca_file) if ca_file else None)
        context = self._contexts.get(key)
        if context is not None:
            return context
        made = _make(verify=verify, ca_file=ca_file, alpn=alpn)
        with self._lock:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts.clear()
            return self._contexts.setdefault(key, made)

    def certificate(self, der: bytes) -> Certificate | None:
        """What is in a certificate; None when it cannot be read."""
        digest = hashlib.sha256(der).digest()
        found = self._certificates.get(digest)
        if found is not None:
            return found
        try:
            found = _read(der)
        except Exception:  # whatever a peer sends as a certificate
            return None
        with self._lock:
            if len(self._certificates) >= MAX_CERTIFICATES:
                self._certificates.clear()
            return self._certificates.setdefault(digest, found)

    def expires_us(self, der: bytes | None) -> int:
        """When a certificate expires, in microseconds of the epoch; 0 when that is not known."""
        found = self.certificate(der) if der else None
        return found.expires_us if found else 0


def _version(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ContextError(f"the file of authorities {path}: {error.strerror}") from None
    return stat.st_mtime_ns, stat.st_size


def _make(*, verify: bool, ca_file: str, alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options |= ssl.OP_NO_TICKET
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            reason = error.strerror or "holds no certificate in PEM"
            raise ContextError(f"the file of authorities {ca_file}: {reason}") from None
    else:
        context.load_default_certs()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _read(der: bytes) -> Certificate:
    certificate = x509.load_der_x509_certificate(der)
    names: list[str] = []
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names += extension.value.get_values_for_type(x509.DNSName)
        names += [str(ip) for ip in extension.value.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        pass
    return Certificate(
        subject=_common_name(certificate.subject),
        issuer=_common_name(certificate.issuer),
        names=tuple(name[:255] for name in names[:MAX_NAMES]),
        begins_us=_micros(certificate.not_valid_before_utc),
        expires_us=_micros(certificate.not_valid_after_utc),
    )


def _micros(at: dt.datetime) -> int:
    return (at - _EPOCH) // dt.timedelta(microseconds=1)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value)[:255] if found else name.rfc4514_string()[:255]


# X509_V_ERR_* as OpenSSL numbers them.
_UNTRUSTED = {
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate's chain ends in a self-signed authority that is not trusted here",
    20: "the certificate was signed by an unknown authority",
    21: "the certificate was signed by an unknown authority",
    23: "the certificate was revoked",
    26: "the certificate is not meant for a server",
    62: "the certificate is for another host",
    64: "the certificate is for another host",
    66: "the certificate's key is too weak",
}

_HANDSHAKE = (
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS on this port"),
    ("HTTP_REQUEST", "the server does not speak TLS on this port"),
    ("PACKET_LENGTH_TOO_LONG", "the server does not speak TLS on this port"),
    ("RECORD_LAYER_FAILURE", "the server does not speak TLS on this port"),
    ("UNSUPPORTED_PROTOCOL", "the server offers only TLS versions that are too old"),
    ("PROTOCOL_VERSION", "the server refuses this side's TLS versions"),
    ("UNRECOGNIZED_NAME", "the server does not know this server name"),
    ("CERTIFICATE_REQUIRED", "the server wants a client's certificate"),
    ("HANDSHAKE_FAILURE", "the server refused the TLS handshake"),
    ("UNEXPECTED_EOF", "the server closed the connection during the TLS handshake"),
    ("DH_KEY_TOO_SMALL", "the server's key exchange is too weak"),
)


def handshake_text(error: BaseException, server_name: str = "") -> str:
    """A failed handshake in one sentence, without a word of OpenSSL's where that can be had."""
    if isinstance(error, ssl.SSLCertVerificationError):
        text = _UNTRUSTED.get(error.verify_code)
        if text is None:
            return f"the certificate cannot be trusted: {error.verify_message}"[:300]
        if error.verify_code in (62, 64) and server_name:
            return f"{text}, not for {server_name}"
        return text
    if isinstance(error, ssl.SSLEOFError | BrokenPipeError):
        return "the server closed the connection during the TLS handshake"
    if isinstance(error, ssl.SSLError):
        reason: str = getattr(error, "reason", None) or str(error)
        for mark, text in _HANDSHAKE:
            if mark in reason.upper().replace(" ", "_"):
                return text
        return f"the TLS handshake failed: {reason.replace('_', ' ').lower()}"[:300]
    if isinstance(error, ConnectionResetError):
        return "the connection was reset during the TLS handshake"
    return f"the TLS handshake failed: {error}"[:300]
