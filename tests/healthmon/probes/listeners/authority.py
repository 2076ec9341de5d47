"""Our own authority for test certificates: good, expired, self-signed, for another host."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Authority:
    """Signs server certificates; its own is in `ca_file`."""

    def __init__(self, folder: Path, *, name: str = "Collector test authority") -> None:
        self._folder = folder
        self._name = _name(name)
        self._key = _key()
        self._own = self._signed(self._name, self._key, [], days=3650, ca=True)
        self.ca_file = str(folder / f"{name.replace(' ', '-')}.pem")
        Path(self.ca_file).write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def server_context(
        self,
        *names: str,
        days: float = 90,
        begins_days: float = -1,
        self_signed: bool = False,
    ) -> ssl.SSLContext:
        """A server's TLS setting with a certificate for `names`, good for `days` from now."""
        key = _key()
        wanted = names or ("localhost", "127.0.0.1", "::1")
        certificate = self._signed(
            _name(wanted[0]), key, wanted, days=days, begins=begins_days, own_key=self_signed
        )
        file = self._folder / f"server-{certificate.serial_number}.pem"
        file.write_bytes(_pem(certificate, key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[str] | tuple[str, ...],
        *,
        days: float,
        begins: float = -1,
        ca: bool = False,
        own_key: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        begin = min(now + begins * DAY, now + days * DAY - DAY)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if own_key else self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(now + days * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
            )
        return builder.sign(key if own_key else self._key, hashes.SHA256())


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@lru_cache(maxsize=1)
def authority() -> Authority:
    """One authority for the whole run: making keys is what costs."""
    import tempfile

    return Authority(Path(tempfile.mkdtemp(prefix="collector-authority-")))
