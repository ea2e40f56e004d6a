"""Archives from a web server: resumed, held to their mark, refused where they must not be asked for. Real servers on loopback."""

import datetime
import hashlib
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.data.fetching import local_copy, record_source
from pipeline.errors import ConfigError, DataError
from pipeline.files import digest_tree
from pipeline.layout import Layout
from pipeline.storage.addresses import allowed_addresses, require_address
from pipeline.storage.download import read_listing
from pipeline.storage.http import HttpServer
from tests.data.conftest import Ingest, dataset_config, storage_config
from tests.storage.conftest import packed
from tests.storage.web import Site, serve

HERE = {"private_addresses": True, "attempts": 1}


def taken(root: Path, site: Site, into: Path, **settings: object) -> bytes:
    """The archive that `local_copy` hands to ingest."""
    cfg = dataset_config(root, "yolo", source=site.address, **settings)
    with local_copy(cfg, storage_config(root, **HERE), Layout(into)) as path:
        return Path(path).read_bytes()


def cut(root: Path, site: Site, into: Path, after: int) -> None:
    """A download that the server ends after `after` bytes of its answer."""
    site.stop_after = after
    with pytest.raises(DataError, match=r"set.zip: .*\n  run it again: it goes on from where it stopped"):
        taken(root, site, into)
    site.stop_after = None


def test_archive_from_the_web_equals_the_folder(ingest: Ingest, site: Site, source: Path):
    assert digest_tree(ingest("yolo", site.address, storage=HERE)) == digest_tree(ingest("yolo", source))


@pytest.mark.parametrize("after", [0, 1, 1_234_567, 2_999_999])
def test_a_cut_download_goes_on_where_it_stopped(root: Path, site: Site, tmp_path: Path, after: int):
    cut(root, site, tmp_path, after)
    site.sent = 0
    assert taken(root, site, tmp_path) == site.content
    assert site.sent == 1 + len(site.content) - after  # one byte asks what is there
    assert not list(tmp_path.glob("work/ingest/*"))


def test_without_ranges_it_starts_again_and_is_right(root: Path, site: Site, tmp_path: Path):
    site.ranges = False
    cut(root, site, tmp_path, 1_000_000)
    assert taken(root, site, tmp_path) == site.content


def test_without_an_etag_nothing_is_joined(root: Path, site: Site, tmp_path: Path):
    """Nothing says that the rest belongs to the part: it starts again."""
    site.etag = False
    cut(root, site, tmp_path, 1_000_000)
    site.asked.clear()
    assert taken(root, site, tmp_path) == site.content
    assert site.asked == ["bytes=0-0", ""]


def test_without_a_length_it_is_taken_to_its_end(root: Path, site: Site, tmp_path: Path):
    site.length = False
    assert taken(root, site, tmp_path) == site.content


def test_a_file_that_changes_midway_is_never_mixed(root: Path, site: Site, source: Path, tmp_path: Path):
    layout = Layout(tmp_path)
    record_source(dataset_config(root, "yolo", source=site.address), storage_config(root, **HERE), layout)
    first = layout.listing.read_bytes()
    cut(root, site, tmp_path, 1_000_000)
    site.content = packed(source, padding=3_500_000)
    with pytest.raises(DataError, match=r"has changed on the server\n  list it anew by: python -m pipeline config"):
        taken(root, site, tmp_path)
    record_source(dataset_config(root, "yolo", source=site.address), storage_config(root, **HERE), layout)
    assert layout.listing.read_bytes() != first
    assert taken(root, site, tmp_path) == site.content
    assert not list(tmp_path.glob("work/ingest/*")), "the part of the old version must be gone"


def test_listing_says_what_dvc_needs_and_is_repeatable(root: Path, site: Site, tmp_path: Path):
    layout, cfg = Layout(tmp_path), dataset_config(root, "yolo", source=site.address)
    record_source(cfg, storage_config(root, **HERE), layout)
    once = layout.listing.read_bytes()
    record_source(cfg, storage_config(root, **HERE), layout)
    assert layout.listing.read_bytes() == once
    (entry,) = read_listing(layout.listing).objects
    assert (entry.name, entry.size, entry.etag) == ("set.zip", len(site.content), site.mark)
    record_source(dataset_config(root, "yolo", source=str(tmp_path)), storage_config(root), layout)
    assert not layout.listing.exists()


def test_sha256_is_checked_when_given(root: Path, site: Site, tmp_path: Path):
    right = hashlib.sha256(site.content).hexdigest()
    assert taken(root, site, tmp_path, sha256=right.upper()) == site.content
    with pytest.raises(DataError, match=rf"has sha256 {right}, dataset.sha256 says {'0' * 64}"):
        taken(root, site, tmp_path, sha256="0" * 64)
    assert not list(tmp_path.glob("work/ingest/*"))
    with pytest.raises(ConfigError, match="must be 64 hexadecimal digits"):
        dataset_config(root, "yolo", source=site.address, sha256="abc")


def test_sha256_of_a_local_archive(ingest: Ingest, site: Site, tmp_path: Path):
    (tmp_path / "set.zip").write_bytes(site.content)
    ingest("yolo", tmp_path / "set.zip", sha256=hashlib.sha256(site.content).hexdigest())
    with pytest.raises(DataError, match="has sha256"):
        ingest("yolo", tmp_path / "set.zip", sha256="0" * 64)
    with pytest.raises(ConfigError, match="a folder has no one digest"):
        ingest("yolo", tmp_path / "set", sha256="0" * 64)


def test_size_cap(root: Path, site: Site, tmp_path: Path):
    cfg = dataset_config(root, "yolo", source=site.address)
    with (
        pytest.raises(DataError, match=r"has 0.0 GB, more than storage.gigabytes=0.001"),
        local_copy(cfg, storage_config(root, **HERE, gigabytes=0.001), Layout(tmp_path)),
    ):
        pass
    site.length = False
    with (
        pytest.raises(DataError, match=r"sends more than 1000000 bytes"),
        local_copy(cfg, storage_config(root, **HERE, gigabytes=0.001), Layout(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(
    ("status", "wrong"),
    [(404, "has no such file"), (403, "refuses access"), (401, "asks for a login"), (500, "answers"), (304, "answers")],
)
def test_refusals_are_one_line(root: Path, site: Site, tmp_path: Path, status: int, wrong: str):
    site.status = status
    with pytest.raises(DataError, match=rf"^http://127.0.0.1:\d+/files/set.zip: the server {wrong} \(status {status}\)"):
        taken(root, site, tmp_path)


def test_server_that_is_not_there(root: Path, tmp_path: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = Site(port=closed.getsockname()[1])
        with pytest.raises(DataError, match=rf"set.zip: http://127.0.0.1:{gone.port} refused the connection. Is it up\?$"):
            taken(root, gone, tmp_path)


def test_server_that_does_not_answer(root: Path, tmp_path: Path):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        server = HttpServer(f"http://127.0.0.1:{deaf.getsockname()[1]}/a.zip", storage_config(root, **HERE, read_seconds=0.2))
        with pytest.raises(DataError, match="did not answer in time"):
            server.listing()


# -- addresses --


def test_private_address_is_refused_before_a_byte_is_sent(root: Path, site: Site, ingest: Ingest):
    with pytest.raises(DataError, match=r"127.0.0.1 is at 127.0.0.1, a private.*\n.*storage.private_addresses=true"):
        ingest("yolo", site.address)
    with pytest.raises(DataError, match=r"localhost is at (127.0.0.1|::1)"):
        ingest("yolo", site.address.replace("127.0.0.1", "localhost"))
    assert site.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.2", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_every_kind_of_inner_address_is_refused(address: str):
    with pytest.raises(DataError, match="a private, loopback or link-local address"):
        allowed_addresses(address, 80, False, "x")
    assert allowed_addresses(address, 80, True, "x")


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_allowed(address: str):
    assert allowed_addresses(address, 80, False, "x") == [address]


def test_redirect_to_a_private_address_is_refused(root: Path, site: Site, monkeypatch: pytest.MonkeyPatch):
    """The first server counts as public; it leads to a second name, which does not."""
    with serve(Site(b"secret")) as inner:
        site.redirect = f"http://localhost:{inner.port}/files/set.zip"
        real = socket.getaddrinfo
        public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", site.port))]
        monkeypatch.setattr("pipeline.storage.addresses._is_public", lambda a: a == "127.0.0.1" and next(turns))
        monkeypatch.setattr("socket.getaddrinfo", lambda host, *a, **k: public if host == "data.example" else real(host, *a, **k))
        turns = iter([True, False, False])
        server = HttpServer(f"http://data.example:{site.port}/files/set.zip", storage_config(root, attempts=1))
        with pytest.raises(DataError, match="localhost is at"):
            server.listing()
        assert site.asked == ["bytes=0-0"] and inner.asked == []


def test_a_name_is_looked_up_once_per_connection(root: Path, site: Site, monkeypatch: pytest.MonkeyPatch):
    """A name that is public when it is checked and private when it is used: the connection goes to what was checked."""
    answers = iter(["127.0.0.1", "127.0.0.3", "127.0.0.3"])
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: object, *rest: object, **more: object) -> object:
        if host != "data.example":
            return real(host, port, *rest, **more)  # type: ignore[arg-type]
        asked.append(next(answers))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (asked[-1], port))]

    monkeypatch.setattr("socket.getaddrinfo", rebinding)
    monkeypatch.setattr("pipeline.storage.addresses._is_public", lambda address: address == "127.0.0.1")
    server = HttpServer(f"http://data.example:{site.port}/files/set.zip", storage_config(root, attempts=1))
    assert server.listing()[0].size == len(site.content)
    assert asked == ["127.0.0.1"]


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for `name` and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem))
    return path


def test_https_checks_the_name_although_it_connects_to_a_number(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    right, other = certificate(tmp_path, "data.example"), certificate(tmp_path, "other.example")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        "socket.getaddrinfo", lambda host, *rest, **more: real("127.0.0.1" if host == "data.example" else host, *rest, **more)
    )
    for shown, trusted, wrong in ((right, right, None), (right, other, "certificate"), (other, other, "certificate|match")):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        with serve(Site(b"encrypted"), certificate=shown) as site:
            server = HttpServer(f"https://data.example:{site.port}/a.zip", storage_config(root, **HERE))
            if wrong is None:
                assert server.listing()[0].size == 9
            else:
                with pytest.raises(DataError, match=rf"https://data.example:\d+ cannot be asked \(.*({wrong})"):
                    server.listing()


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("file:///etc/passwd", "redirects to file://"),
        ("ftp://x/y", "redirects to ftp://"),
        ("/files/set.zip", "redirects more than 5"),
    ],
)
def test_redirects_that_are_not_followed(root: Path, site: Site, tmp_path: Path, target: str, wrong: str):
    site.redirect = target
    with pytest.raises(DataError, match=wrong):
        taken(root, site, tmp_path)


def test_redirect_is_followed(root: Path, site: Site, tmp_path: Path):
    with serve(Site(redirect=site.address)) as front:
        assert taken(root, front, tmp_path) == site.content


@pytest.mark.parametrize(
    ("address", "wrong"),
    [
        ("ftp://host/a.zip", r"ftp:// is not supported; supported: a path, http, https, s3"),
        ("http:///a.zip", "names no server"),
        ("s3:///key", "names no server or bucket"),
        ("https://me:word@host/a.zip", r"dataset.source='https://host/a.zip' has a user or password"),
        ("https://host/a.zip?X-Amz-Signature=abc", r"'https://host/a.zip' has X-Amz-Signature in its query"),
    ],
)
def test_addresses_that_cannot_be_settings(address: str, wrong: str):
    with pytest.raises(ConfigError, match=wrong) as caught:
        require_address("dataset.source", address)
    assert "word" not in str(caught.value).replace("password", "") and "abc" not in str(caught.value)


def test_http_needs_an_archive(root: Path, ingest: Ingest):
    with pytest.raises(ConfigError, match=r"is no archive by its name: it must end in one of .zip"):
        ingest("yolo", "https://host/folder")
