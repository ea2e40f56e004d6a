"""Which address of a machine the others reach it by, and what torchrun is told."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import UserError
from pipeline.training.launch import environment, lost, torchrun
from pipeline.training.nodes import Place, place_of


def test_whoever_has_the_meeting_points_address_holds_the_meeting() -> None:
    assert place_of("127.0.0.1:29400") == Place("127.0.0.1", "lo", True)
    assert place_of("localhost:29400", patience=1).holds


def test_another_machine_is_reached_by_an_address_of_this_one() -> None:
    """An address of documentation: routed, nobody's, and nothing is sent."""
    try:
        place = place_of("192.0.2.1:29400")
    except UserError as error:
        pytest.skip(f"this machine has no route to others: {error}")
    assert not place.holds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((place.address, 0))  # it is one of ours
    assert place.interface in {name for _, name in socket.if_nameindex()}


def test_a_name_that_nobody_knows_is_waited_for_and_then_said() -> None:
    with pytest.raises(
        UserError, match=r"compute.rendezvous=nowhere.invalid:29400: nowhere.invalid: .*\n  .*must name a machine"
    ):
        place_of("nowhere.invalid:29400", patience=0.2)


def test_torchrun_is_told_who_holds_the_meeting(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = settings.load(("compute=nodes", "compute.rendezvous=10.0.0.1:29400"), root).compute
    place = Place("10.0.0.2", "eth1", False)
    words = torchrun("m:f", Path("settings.json"), compute, place)
    assert {"--nnodes=2", "--rdzv-endpoint=10.0.0.1:29400", "--local-addr=10.0.0.2", "--max-restarts=0"} <= set(words)
    assert any(word.startswith("--rdzv-conf=is_host=0,") for word in words)
    assert any("is_host=1" in word for word in torchrun("m:f", Path("settings.json"), compute, replace(place, holds=True)))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert environment(compute, place)["GLOO_SOCKET_IFNAME"] == "eth1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert environment(compute, place)["GLOO_SOCKET_IFNAME"] == "ib0"
    assert environment(compute, place)["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"  # a machine that comes anew finds its round
    assert environment(replace(compute, nodes=1), None)["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_broken_connection_is_told_from_a_fault() -> None:
    assert lost(RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:1"))
    assert not lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_name_that_means_the_loopback_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian's /etc/hosts has a machine's own name: the other machines would be sent to themselves."""
    answer = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.1.1", 29400))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    with pytest.raises(UserError, match=r"on this machine trainer-1 is 127.0.1.1, its loopback\n  name it by the address"):
        place_of("trainer-1:29400")
