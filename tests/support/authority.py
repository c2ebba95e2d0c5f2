"""A certificate authority for tests of TLS."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """A certificate authority that writes pairs of files and trusts itself; `root` is its own certificate."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.root = folder / "root.pem"
        self.root.write_bytes(self._authority.cert_pem.bytes())
        self.trust = ssl.create_default_context()
        self._authority.configure_trust(self.trust)

    def issue(self, name: str = "localhost", *others: str) -> None:
        """Write a new certificate and its key, of this machine and of other names."""
        issued = self._authority.issue_cert("127.0.0.1", "localhost", *others, common_name=name)
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
