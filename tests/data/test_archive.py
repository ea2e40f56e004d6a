"""Archives: what a folder gives, and hostile ones refused by the member's name with nothing left behind or written outside."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data.archive import SUFFIXES, unpack
from pipeline.data.config import ArchiveLimits
from pipeline.data.sources import open_source
from pipeline.errors import DataError

LIMITS = ArchiveLimits(files=50, gigabytes=0.001, ratio=200)
CONTENT = {"a.txt": b"one", "deep/er/b.bin": bytes(range(256)) * 9, "empty": b""}


def tar_with(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_with(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_gives_the_files_back(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    if suffix == ".zip":
        zip_with(path, ("deep/", b""), *CONTENT.items())
    else:
        mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "tbz2": "w:bz2", "xz": "w:xz", "txz": "w:xz"}.get(
            suffix.split(".")[-1], "w"
        )
        folder = special("deep", tarfile.DIRTYPE)
        tar_with(path, (folder, b""), *((tarfile.TarInfo(n), c) for n, c in CONTENT.items()), mode=mode)
    before = path.read_bytes()
    with open_source(str(path), tmp_path / "work", LIMITS) as folder:
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == CONTENT and path.read_bytes() == before and not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "a/..", "\\\\host\\evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_member_that_leads_out_is_refused(tmp_path, name, kind):
    path = tmp_path / "in" / f"x.{kind}"
    path.parent.mkdir()
    good = ("fine.txt", b"1")
    zip_with(path, good, (name, b"2")) if kind == "zip" else tar_with(
        path, *((tarfile.TarInfo(n), c) for n, c in (good, (name, b"2")))
    )
    with (
        pytest.raises(DataError, match="leads out of the folder") as caught,
        open_source(str(path), tmp_path / "work/deep", LIMITS),
    ):
        pass
    assert repr(name) in str(caught.value)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path] and not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard", tarfile.LNKTYPE, "fine.txt"),
        special("pipe", tarfile.FIFOTYPE),
        special("disk", tarfile.BLKTYPE),
        special("tty", tarfile.CHRTYPE),
    ],
    ids=lambda info: info.name,
)
def test_tar_link_or_device_is_refused(tmp_path, member):
    path = tar_with(tmp_path / "x.tar", (tarfile.TarInfo("fine.txt"), b"1"), (member, b""))
    with pytest.raises(DataError, match=f"'{member.name}' is a link or a device"):
        unpack(path, tmp_path / "out", LIMITS)


def test_zip_link_is_refused(tmp_path):
    path = zip_with(tmp_path / "x.zip", (zip_link("link"), b"/etc/passwd"))
    with pytest.raises(DataError, match="'link' is a link or a device"):
        unpack(path, tmp_path / "out", LIMITS)


def test_caps_name_the_member_and_the_setting(tmp_path):
    many = zip_with(tmp_path / "many.zip", *((f"{i:02d}", b"") for i in range(51)))
    with pytest.raises(DataError, match=r"member '50' is member 51\n.*dataset.archive.files"):
        unpack(many, tmp_path / "1", LIMITS)
    large = zip_with(tmp_path / "large.zip", ("noise", os.urandom(1_000_001)))
    with pytest.raises(DataError, match=r"member 'noise' takes the content over 0.001 GB\n.*dataset.archive.gigabytes"):
        unpack(large, tmp_path / "2", LIMITS)
    bomb = zip_with(tmp_path / "bomb.zip", ("zeros", bytes(30_000_000)))
    with pytest.raises(
        DataError, match=r"member 'zeros' takes the content over 200 times the archive's size\n.*dataset.archive.ratio"
    ):
        unpack(bomb, tmp_path / "3", ArchiveLimits(files=9, gigabytes=9, ratio=200))
    assert (tmp_path / "3/zeros").stat().st_size < 10_000_000, "stopped while it was unpacking, not after"


def test_size_in_the_header_is_not_believed(tmp_path):
    """A zip whose directory says 1 byte: the real bytes are counted (zipfile itself stops at the stated size)."""
    path = zip_with(tmp_path / "x.zip", ("zeros", bytes(5_000_000)))
    data = path.read_bytes().replace((5_000_000).to_bytes(4, "little"), (1).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(DataError):
        unpack(path, tmp_path / "out", LIMITS)


def test_repeated_member_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zip_with(tmp_path / "x.zip", ("a", b"1"), ("a", b"2"))
    with pytest.raises(DataError, match="'a' is there twice"):
        unpack(path, tmp_path / "out", LIMITS)


def test_name_as_file_and_folder_is_refused(tmp_path):
    path = zip_with(tmp_path / "x.zip", ("a", b"1"), ("a/b", b"2"))
    with pytest.raises(DataError, match="a/b"):
        unpack(path, tmp_path / "out", LIMITS)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_damaged_archives_are_refused(tmp_path, suffix):
    good = tmp_path / f"good{suffix}"
    noise = os.urandom(20_000)
    if suffix == ".zip":
        zip_with(good, ("noise", noise), method=zipfile.ZIP_STORED)
    else:
        tar_with(good, (tarfile.TarInfo("noise"), noise), mode=f"w:{suffix.removeprefix('.tar').removeprefix('.')}")
    whole = good.read_bytes()
    flipped = bytearray(whole)
    flipped[9000] ^= 0xFF
    for number, content in enumerate((b"", b"not an archive", whole[:9000], bytes(flipped))):
        if suffix == ".tar" and number in (0, 3):
            continue  # an empty tar is a tar, and its content has no checksum
        path = tmp_path / f"bad{number}{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged") as caught, open_source(str(path), tmp_path / "work", LIMITS):
            pass
        assert str(path) in str(caught.value) and not (tmp_path / "work").exists()
