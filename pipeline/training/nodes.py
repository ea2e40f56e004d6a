"""Where several machines meet for one training: which address of this machine the others reach it by. No torch.

torchrun and gloo would guess by the host's name, which on many machines names the loopback or nothing at all. The route to the
meeting point says it for certain, and whoever owns the meeting point's address is the one to hold the meeting.
"""

import socket
import time
from dataclasses import dataclass
from ipaddress import ip_address

from pipeline.errors import UserError

PATIENCE = 300.0
"""Seconds until the meeting point's name must be known: a cluster's name service learns it when its machine starts."""


@dataclass(frozen=True, slots=True)
class Place:
    """This machine, as the others of the training see it."""

    address: str
    interface: str
    """Network interface that has the address."""
    holds: bool
    """Whether the meeting point is this machine."""


def place_of(rendezvous: str, patience: float = PATIENCE) -> Place:
    """This machine's place in the meeting at `rendezvous`, host:port.

    UserError when its name stays unknown, has no route, or means here an address that no other machine can reach.
    """
    host, _, port = rendezvous.rpartition(":")
    family, there = _resolved(host, int(port), rendezvous, patience)
    if ip_address(there[0]).is_loopback and not _says_loopback(host):
        # Debian's /etc/hosts gives a machine's own name 127.0.1.1: the others would be told to come there
        todo = "name it by the address that the other machines reach"
        raise UserError(f"compute.rendezvous={rendezvous}: on this machine {host} is {there[0]}, its loopback\n  {todo}")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(there)  # nothing is sent: the kernel only chooses a route
        except OSError as error:
            raise UserError(
                f"compute.rendezvous={rendezvous}: {there[0]} cannot be reached from here: {error.strerror}"
            ) from error
        address = str(probe.getsockname()[0])
    return Place(address, _interface(address), _is_own(family, there[0]))


def _resolved(host: str, port: int, rendezvous: str, patience: float) -> tuple[int, tuple[str, int]]:
    """Address family and address of the meeting point, waited for."""
    deadline = time.monotonic() + patience
    while True:
        try:
            family, *_, there = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)[0]
            return family, (str(there[0]), port)
        except socket.gaierror as error:
            if time.monotonic() >= deadline:
                todo = "compute.rendezvous must name a machine of the training that all others can reach"
                raise UserError(f"compute.rendezvous={rendezvous}: {host}: {error.strerror}\n  {todo}") from error
            time.sleep(min(2.0, patience / 10))


def _says_loopback(host: str) -> bool:
    """Whether it is asked for: all processes on one machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _interface(address: str) -> str:
    import psutil

    found = [name for name, known in psutil.net_if_addrs().items() if any(entry.address == address for entry in known)]
    return found[0] if found else "lo"  # any other address of 127.0.0.0/8


def _is_own(family: int, address: str) -> bool:
    """Whether `address` is one of this machine's: the kernel lets nobody bind another's."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
