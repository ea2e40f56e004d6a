"""Sources on a real S3 server: archive and prefix, killed and resumed, changed, and every way to be wrong in one line."""

import os
import random
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.data.dataset import open_dataset
from pipeline.data.fetching import local_copy, record_source
from pipeline.errors import DataError, UserError
from pipeline.files import digest_bytes, digest_tree
from pipeline.layout import Layout
from pipeline.storage.download import fetch, list_source
from tests.data.conftest import Ingest, dataset_config, storage_config
from tests.data.test_yolo import text, yolo
from tests.services.conftest import S3
from tests.storage.conftest import packed

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
HERE = {"private_addresses": True}


def upload(s3: S3, bucket: str, folder: Path, prefix: str) -> None:
    client = s3.client()
    for path in folder.rglob("*.*"):
        client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")


def test_archive_and_prefix_equal_the_folder(s3: S3, bucket: str, ingest: Ingest, tmp_path: Path):
    source = yolo(tmp_path / "set")
    upload(s3, bucket, source, "raw/set")
    s3.client().put_object(Bucket=bucket, Key="raw/set/", Body=b"")  # the mark that some tools keep for a folder
    s3.client().put_object(Bucket=bucket, Key="raw/settle/images/train/9.png", Body=b"of another prefix")
    s3.client().put_object(Bucket=bucket, Key="set.zip", Body=packed(source))
    expected = digest_tree(ingest("yolo", source))
    for address in (f"s3://{bucket}/raw/set", f"s3://{bucket}/raw/set/", f"s3://{bucket}/set.zip"):
        dataset = ingest("yolo", address, storage=HERE)
        assert digest_tree(dataset) == expected, address
        assert open_dataset(dataset).info.source == "yolo:set"


def test_a_changed_object_is_another_listing(s3: S3, bucket: str, root: Path, tmp_path: Path):
    source = yolo(tmp_path / "set")
    upload(s3, bucket, source, "set")
    layout = Layout(tmp_path)
    cfg, storage = dataset_config(root, "yolo", source=f"s3://{bucket}/set"), storage_config(root, **HERE)
    record_source(cfg, storage, layout)
    once = layout.listing.read_bytes()
    record_source(cfg, storage, layout)
    assert layout.listing.read_bytes() == once
    text(source / "labels/val/1.txt", "1 0.5 0.5 0.25 0.50")  # of the same length as another could be: the ETag tells
    upload(s3, bucket, source, "set")
    with pytest.raises(DataError, match="has changed on the server"), local_copy(cfg, storage, layout):
        pass
    record_source(cfg, storage, layout)
    assert layout.listing.read_bytes() != once
    with local_copy(cfg, storage, layout) as here:
        assert digest_tree(Path(here)) == digest_tree(source)


# -- killed --


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None


class Relay(socketserver.ThreadingTCPServer):
    """Passes bytes between a client and the server, counts those to the client, notes requests, and can be made slow."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, target: tuple[str, int], pause: float) -> None:
        self.target, self.pause, self.sent = target, pause, 0
        self.asked: list[Request] = []
        super().__init__(("127.0.0.1", 0), RelayHandler)


class RelayHandler(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as onward:
            back = threading.Thread(target=self._pass_on, args=(onward, self.request, True), daemon=True)
            back.start()
            self._pass_on(self.request, onward, False)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if not counted and (found := re.match(rb"(GET|HEAD) (\S+) HTTP/1.1\r\n", data)):
                    wanted = re.search(rb"(?im)^range: *(\S+)\r$", data)
                    range_ = wanted[1].decode() if wanted else None
                    self.server.asked.append(Request(found[1].decode(), found[2].decode(), range_))
                if counted:
                    self.server.sent += len(data)
                    time.sleep(self.server.pause)
                target.sendall(data)
        except OSError:
            pass  # the client was killed: that is the test
        for side in (source, target):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@contextmanager
def relay(s3: S3, pause: float) -> Iterator[Relay]:
    with Relay(("127.0.0.1", int(s3.endpoint.rpartition(":")[2])), pause) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def checkout(root: Path, folder: Path) -> Path:
    """What `python -m pipeline ingest` needs, without data."""
    for name in ("conf", "pipeline"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_kill_9_of_a_download_loses_no_byte_that_was_there(s3: S3, bucket: str, root: Path, tmp_path: Path):
    """Killed three times at random bytes; the server sends what was missing, plus what was on its way when the kill came."""
    source = yolo(tmp_path / "set")
    content = packed(source, padding=24_000_000)
    s3.client().put_object(Bucket=bucket, Key="set.zip", Body=content)
    place = checkout(root, tmp_path / "checkout")
    chance = random.Random(7)
    on_its_way = 3_000_000  # a block of 1 MB in memory, the rest in the buffers of sockets on both sides of the relay
    with relay(s3, pause=0.004) as between:
        env = os.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{between.server_address[1]}"}
        command = [sys.executable, "-m", "pipeline", "ingest", "dataset=yolo", f"dataset.source=s3://{bucket}/set.zip"]
        command += ["tracking=off", "storage.private_addresses=true"]
        kills = 0
        for _ in range(3):
            stop_at = between.sent + chance.randint(200_000, 5_000_000)
            process = subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            while between.sent < stop_at and process.poll() is None:
                time.sleep(0.005)
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stderr:
                process.stderr.close()
            kills += 1
            assert not (place / "data/dataset").exists(), "nothing half-written"
        kept = sum(path.stat().st_size for path in place.glob("work/ingest/*.fetched/parts/*"))
        assert 0 < kept < len(content)
        before, between.pause = between.sent, 0.0
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert between.sent - before < len(content) - kept + on_its_way
        assert between.sent < len(content) + (kills + 1) * on_its_way
    shutil.copytree(source, tmp_path / "plain/set")
    assert open_dataset(place / "data/dataset").info.counts == {
        name: {"images": 2, "annotations": 4, "missing": 0} for name in ("train", "val")
    }
    assert not list(place.glob("work/ingest/*.fetched"))


def test_kill_9_of_a_prefix_fetches_only_the_rest(s3: S3, bucket: str, root: Path, tmp_path: Path):
    """Killed at a random object: the second run asks for those alone that were not whole, and for parts from where they end."""
    source = tmp_path / "set"
    content = {f"{folder}/{number:03}.bin": random.Random(number).randbytes(40_000) for number in range(60) for folder in "ab"}
    content["big.bin"] = random.Random(0).randbytes(12_000_000)
    for name, data in content.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    upload(s3, bucket, source, "set")  # boto3 sends the big one in parts
    place = checkout(root, tmp_path / "checkout")
    with relay(s3, pause=0.004) as between:
        env = os.environ | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{between.server_address[1]}"}
        command = [sys.executable, "-c", _FETCH, f"s3://{bucket}/set", str(root)]
        process = subprocess.Popen(command, cwd=place, env=env)
        stop_at = random.Random(3).randint(15, 90)
        while sum(1 for _ in place.glob("fetched/whole/*/*.bin")) < stop_at and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = {path.relative_to(place / "fetched/whole").as_posix() for path in place.glob("fetched/whole/**/*.bin")}
        parts = {path.name: path.stat().st_size for path in place.glob("fetched/parts/*") if path.stat().st_size}
        assert stop_at <= len(whole) < len(content)
        between.asked.clear()
        between.pause = 0.0
        subprocess.run(command, cwd=place, env=env, check=True)
    asked = [one for one in between.asked if one.method == "GET" and "list-type" not in one.path]
    names = Counter(one.path.partition("/set/")[2].partition("?")[0] for one in asked)
    there = {name for name in content if parts.get(digest_bytes(name.encode())) == len(content[name])}  # killed before the move
    assert names == Counter(content.keys() - whole - there), "each missing object once, and no other"
    for one in asked:
        start = parts.get(digest_bytes(one.path.partition("/set/")[2].encode()))
        assert one.range == (f"bytes={start}-" if start else None)
    assert {name: (place / "fetched/whole" / name).read_bytes() for name in content} == content


_FETCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pipeline.storage.download import fetch, list_source
from tests.data.conftest import storage_config
config = storage_config(Path(sys.argv[2]), private_addresses=True, workers=4)
fetch(list_source(sys.argv[1], False, config), False, Path("fetched"), config, lambda _: None)
"""


def test_an_object_sent_in_parts_is_checked_against_their_md5(s3: S3, bucket: str, root: Path, tmp_path: Path):
    """Its ETag is no MD5 of the whole: a damaged part on this machine would otherwise be joined unnoticed."""
    content = random.Random(1).randbytes(11_000_000)
    (tmp_path / "set.zip").write_bytes(content)
    s3.client().upload_file(str(tmp_path / "set.zip"), bucket, "set.zip")  # 8 MiB and the rest
    config, address = storage_config(root, **HERE), f"s3://{bucket}/set.zip"
    listing = list_source(address, True, config)
    assert str(listing.objects[0].etag).strip('"').endswith("-2")
    part = tmp_path / "fetched/parts" / digest_bytes(b"set.zip")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" + content[1:9_000_000])
    with pytest.raises(DataError, match="was damaged on its way"):
        fetch(listing, True, tmp_path / "fetched", config, lambda _: None)
    fetch(listing, True, tmp_path / "fetched", config, lambda _: None)
    assert (tmp_path / "fetched/whole/set.zip").read_bytes() == content


# -- wrong in one line --


def refused(root: Path, tmp_path: Path, address: str, **storage: object) -> str:
    """The message of the UserError that fetching `address` gives."""
    cfg = dataset_config(root, "yolo", source=address)
    with (
        pytest.raises(UserError) as caught,
        local_copy(cfg, storage_config(root, **{**HERE, "attempts": 1, **storage}), Layout(tmp_path)),
    ):
        pass
    message = str(caught.value)
    assert len(message.splitlines()) <= 2 and os.environ.get("AWS_SECRET_ACCESS_KEY", "absent") not in message
    return message


def test_wrong_bucket_prefix_and_key(s3: S3, bucket: str, root: Path, tmp_path: Path):
    assert "s3://no-such-bucket/x: there is no bucket 'no-such-bucket'" in refused(root, tmp_path, "s3://no-such-bucket/x")
    assert "there is no bucket" in refused(root, tmp_path, "s3://no-such-bucket/x.zip")
    assert f"s3://{bucket}/nothing: has no object" in refused(root, tmp_path, f"s3://{bucket}/nothing")
    assert f"s3://{bucket}/nothing.zip: there is no such object" in refused(root, tmp_path, f"s3://{bucket}/nothing.zip")


def test_wrong_credentials(s3: S3, bucket: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    message = refused(root, tmp_path, f"s3://{bucket}/set.zip")
    assert "refuses access (SignatureDoesNotMatch)" in message and "wrong-secret" not in message
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no AWS credentials were found" in refused(root, tmp_path, f"s3://{bucket}/set.zip")
    message = refused(root, tmp_path, f"s3://{bucket}/set.zip", profile="nobody")
    assert message.startswith("config: storage.profile='nobody' is not there")


def test_wrong_endpoint(s3: S3, bucket: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        message = refused(root, tmp_path, f"s3://{bucket}/set", endpoint=endpoint)
    assert message == f"s3://{bucket}/set: endpoint {endpoint} refused the connection. Is it up?"
    message = refused(root, tmp_path, f"s3://{bucket}/set", private_addresses=False)
    assert f"s3://{bucket}/set: 127.0.0.1 is at 127.0.0.1, a private, loopback or link-local address" in message


def test_settings_reach_the_server_without_the_environment(s3: S3, bucket: str, root: Path, tmp_path: Path, monkeypatch):
    """Endpoint by conf/storage, keys by a profile: AWS's own files."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(f"[lab]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    s3.client().put_object(Bucket=bucket, Key="set.zip", Body=packed(yolo(tmp_path / "set")))
    cfg = dataset_config(root, "yolo", source=f"s3://{bucket}/set.zip")
    storage = storage_config(root, **HERE, endpoint=s3.endpoint, profile="lab")
    with local_copy(cfg, storage, Layout(tmp_path)) as here:
        assert Path(here).stat().st_size == len(packed(tmp_path / "set"))


def test_limits_on_objects_and_bytes(s3: S3, bucket: str, root: Path, tmp_path: Path):
    upload(s3, bucket, yolo(tmp_path / "set"), "set")
    assert "has more than 3 objects" in refused(root, tmp_path, f"s3://{bucket}/set", files=3)
    assert "more than storage.gigabytes=1e-08" in refused(root, tmp_path, f"s3://{bucket}/set", gigabytes=1e-8)
