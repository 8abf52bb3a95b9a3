"""An authority of our own and what it signs."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)


class Authority:
    """Signs certificates; `path` holds its own, in PEM."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        made = self._begun(self._name, self._key, NOW - timedelta(days=1), NOW + timedelta(days=9))
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path = folder / f"{name}.pem"
        signed = made.sign(self._key, hashes.SHA256())
        self.path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def certificate(self, name: str = "localhost", *, days: float = 1) -> Path:
        """A PEM file with a certificate for a host, loopback's addresses included, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = NOW + timedelta(days=days)
        names = [x509.DNSName(name)]
        hosts = [x509.IPAddress(ip_address("127.0.0.1"))] if name == "localhost" else []
        made = self._begun(_named(name), key, until - timedelta(days=2), until)
        made = made.add_extension(x509.SubjectAlternativeName([*names, *hosts]), critical=False)
        path = self._folder / f"{name}{days}.pem"
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + made.sign(self._key, hashes.SHA256()).public_bytes(pem))
        return path

    def serving(self, name: str = "localhost", **more: float) -> ssl.SSLContext:
        """What a server with such a certificate listens with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate(name, **more))
        return context

    def _begun(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
