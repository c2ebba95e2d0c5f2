"""The TLS context of the server: certificate and key from files, read again without closing a connection."""

import ssl

from relay.core.errors import ConfigError


class Tls:
    """Holds the one context that the listening socket has; connections that are open keep what they agreed on.

    Raises `ConfigError` when the files cannot be used.
    """

    def __init__(self, cert: str, key: str) -> None:
        self.context = _context(cert, key)

    def reload(self, cert: str, key: str) -> None:
        """Read the files again, for connections to come. Raises `ConfigError`; what was in use then stays."""
        # A key that does not fit would leave half of the pair behind, so another context tries them first.
        _context(cert, key)
        _load(self.context, cert, key)


def _context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: str, key: str) -> None:
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower() or "not PEM"
        raise ConfigError(f"tls_cert {cert!r} and tls_key {key!r} cannot be used: {reason}") from None
    except (OSError, _Encrypted) as error:
        why = error.strerror if isinstance(error, OSError) else "the key is encrypted; give one without a passphrase"
        raise ConfigError(f"tls_cert {cert!r} and tls_key {key!r} cannot be read: {why}") from None


class _Encrypted(Exception):
    """The key asks for a passphrase; nobody is there to type one."""


def _no_password() -> str:
    raise _Encrypted
