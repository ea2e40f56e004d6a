"""Which sources are on other machines, and which machines may be asked."""

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.errors import ConfigError, DataError

DVC_SCHEMES = ("dvc+https", "dvc+http", "dvc+ssh", "dvc+file")
"""Of data in a git repository with DVC: `dvc+` and the address that git clones, as pip writes `git+https://`."""
SCHEMES = ("http", "https", "s3", *DVC_SCHEMES)
"""Of sources that are fetched; `file` and plain paths are on this machine."""
_SECRETS = {
    *("x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature", "x-goog-credential", "signature", "sig"),
    *("token", "access_token", "key", "api_key", "apikey", "password", "auth", "jwt"),
}
ALLOW = "if you trust it, allow it by storage.private_addresses=true"


def scheme_of(source: str) -> str | None:
    """The scheme of an address in lower case; None for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", source)
    return found[1].lower() if found else None


def is_remote(source: str) -> bool:
    """Whether a source has to be fetched."""
    return scheme_of(source) in SCHEMES


@dataclass(frozen=True, slots=True)
class DvcAddress:
    """dvc+https://HOST/REPOSITORY.git#PATH@REV: what `dvc get URL PATH --rev REV` takes, as one word."""

    repository: str
    """What git clones: an address, or a path on this machine."""
    path: str
    """Of a file or folder in the repository, tracked by DVC or by git."""
    rev: str | None
    """Branch, tag or commit; None: the default branch, of a repository on this machine its working tree."""

    @classmethod
    def of(cls, source: str) -> "DvcAddress":
        """The parts of an address with one of `DVC_SCHEMES`. The last @ begins the revision: `#a@b@` is the path a@b."""
        scheme, _, rest = source.partition("://")
        repository, _, place = rest.partition("#")
        path, _, rev = place.rpartition("@") if "@" in place else (place, "", "")
        return cls(repository if scheme.lower() == "dvc+file" else f"{scheme[4:].lower()}://{repository}", path, rev or None)


def path_of(source: str) -> str:
    """The path that an address names on its server, whose last part is the name of the data."""
    scheme = scheme_of(source)
    if scheme in DVC_SCHEMES:
        return DvcAddress.of(source).path
    return source.partition("://")[2] if scheme == "s3" else unquote(urlsplit(source).path) or source


def require_address(field: str, source: str) -> None:
    """ConfigError when an address has a scheme that is not supported, no host, or a secret in it.

    Settings are written into params.yaml, dvc.lock and MLflow: an address with a password would be kept there for everybody.
    """
    scheme = scheme_of(source)
    if scheme is None or scheme == "file":
        return
    if scheme not in SCHEMES:
        raise ConfigError(field, _shown(source), f"{scheme}:// is not supported; supported: a path, {', '.join(SCHEMES)}")
    try:
        parts = urlsplit(source)
        host = parts.hostname
    except ValueError as error:
        raise ConfigError(field, None, f"is not an address: {error}") from error
    if scheme in DVC_SCHEMES:
        path = PurePosixPath(DvcAddress.of(source).path)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            rule = "names no path in the repository: add #PATH, or #PATH@REV for a branch, tag or commit"
            raise ConfigError(field, shown(source), rule)
    if not host and scheme != "dvc+file":
        raise ConfigError(field, _shown(source), "names no server or bucket")
    secret = next((name for name, _ in parse_qsl(parts.query) if name.lower() in _SECRETS), None)
    if (parts.username and scheme != "dvc+ssh") or parts.password or secret:  # of ssh a user is no secret: git@HOST
        what = f"{secret} in its query" if secret else "a user or password"
        raise ConfigError(field, shown(source), f"has {what}: settings are kept in files and logs; leave secrets out")


def shown(address: str) -> str:
    """The address as messages show it: no user, no password, no query."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
        place = f"#{parts.fragment}" if parts.fragment and parts.scheme in DVC_SCHEMES else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}{place}"
    except ValueError:
        return "(malformed address)"


def allowed_addresses(host: str, port: int, private: bool, place: str) -> list[str]:
    """The numeric addresses of `host`, each allowed to be connected to. DataError when it has none, or one that is not allowed.

    Connect to one of these and not to the name: a second look-up could be answered otherwise.
    """
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(place, f"{host} has no address ({reason})", "check the name, and this machine's network") from error
    for address in found:
        if not private and not _is_public(address):
            raise DataError(place, f"{host} is at {address}, a private, loopback or link-local address", ALLOW)
    return list(dict.fromkeys(found))


def _is_public(address: str) -> bool:
    number = ipaddress.ip_address(address.partition("%")[0])
    inner = number
    if isinstance(number, ipaddress.IPv6Address):
        inner = number.ipv4_mapped or number.sixtofour or (number.teredo or (0, None))[1] or number
        if number in ipaddress.ip_network("64:ff9b::/96"):  # an IPv4 address behind NAT64
            inner = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
    return inner.is_global and not inner.is_multicast and (inner is number or number.version == 6)


def _shown(source: str) -> str:
    return shown(source) if "@" in source or "?" in source else source
