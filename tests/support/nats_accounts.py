"""An operator, its accounts and a user of NATS with credentials, as `nsc` would make them; needs the package nkeys."""

import json
import os
import time
from base64 import b32encode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import nkeys

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_NO_LIMITS = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1),
    "wildcards": True,
}
_OF_JETSTREAM = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


class Signer:
    """One key pair."""

    def __init__(self, prefix: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.name: str = bytes(self._pair.public_key).decode()

    def token(self, about: str, kind: str, said: Mapping[str, Any], *, expires_at: int | None = None) -> str:
        """Return a signed statement about a key, of the kind `operator`, `account` or `user`."""
        claims: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": self.name,
            "name": kind,
            "sub": about,
            "nats": {**said, "type": kind, "version": 2},
        }
        if expires_at is not None:
            claims["exp"] = expires_at
        claims["jti"] = b32encode(sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
        signed = f"{_encoded(json.dumps(_HEADER).encode())}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(bytes(self._pair.sign(signed.encode())))}"


class NatsAccounts:
    """An operator with one account that may use JetStream."""

    def __init__(self) -> None:
        self._operator = Signer(nkeys.PREFIX_BYTE_OPERATOR)
        self._account, self._system = Signer(nkeys.PREFIX_BYTE_ACCOUNT), Signer(nkeys.PREFIX_BYTE_ACCOUNT)

    def write_config(self, file: Path) -> None:
        """Write the configuration of a server that takes users of the account, and nobody else."""
        operator, account, system = self._operator, self._account, self._system
        # The system's account may not have JetStream.
        tokens = {
            account.name: operator.token(account.name, "account", {"limits": {**_NO_LIMITS, **_OF_JETSTREAM}}),
            system.name: operator.token(system.name, "account", {"limits": _NO_LIMITS}),
        }
        preloaded = "\n".join(f"  {name}: {token}" for name, token in tokens.items())
        file.write_text(
            f"operator: {operator.token(operator.name, 'operator', {})}\n"
            f"system_account: {system.name}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preloaded}\n}}\n"
        )

    def write_credentials(self, file: Path, subjects: list[str], *, lasts_s: float | None = None) -> None:
        """Write the credentials of a new user, who may publish and hear these subjects, for so long."""
        user = Signer(nkeys.PREFIX_BYTE_USER)
        may = {"allow": subjects}
        token = self._account.token(
            user.name,
            "user",
            {"pub": may, "sub": may, "subs": -1, "data": -1, "payload": -1},
            expires_at=None if lasts_s is None else int(time.time() + lasts_s),
        )
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
