"""Files are whole or not there: checked by killing the writer at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import DataError, UserError
from pipeline.files import digest_tree, locked, read_json, staged, write_atomically, write_json

WRITER = """
import sys
from pathlib import Path
from pipeline.files import staged, write_atomically
root, turn = Path(sys.argv[1]), 0
while True:
    turn += 1
    write_atomically(root / "one", str(turn).encode() * 2000)
    with staged(root / "folder") as out:
        for name in range(8):
            (out / str(name)).write_text(str(turn) * 500)
    print(turn, flush=True)
"""


def start_writer(root: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=root, stdout=subprocess.PIPE, text=True)


def fail_half_way(target: Path) -> None:
    with staged(target) as out:
        (out / "a").write_text("new")
        raise RuntimeError


def test_a_writer_killed_at_any_moment_leaves_whole_files(root: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(8):
        writer = start_writer(root, tmp_path)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()

        text = (tmp_path / "one").read_text()
        turn = text[: len(text) // 2000]
        assert text == turn * 2000
        folder = tmp_path / "folder" if (tmp_path / "folder").exists() else tmp_path / ".folder.old"
        assert len({path.read_text() for path in folder.iterdir()}) == 1
        assert len(list(folder.iterdir())) == 8


def test_the_folder_set_aside_by_a_crash_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".folder.old").mkdir()
    (tmp_path / ".folder.old" / "kept").write_text("old")
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["kept"]


def test_a_failure_leaves_the_old_folder_and_no_trace(tmp_path: Path) -> None:
    with staged(tmp_path / "folder") as out:
        (out / "a").write_text("old")
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path / "folder")
    assert (tmp_path / "folder" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")

    def disk_full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_equal_values_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [1.5]})
    write_json(tmp_path / "b", {"y": [1.5], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_malformed_json_is_named_with_its_position(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1,\n "y": }')
    with pytest.raises(DataError, match=r"a\.json: line 2, column \d+: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("change", ["rename", "edit", "add"])
def test_the_digest_of_a_tree_sees_every_change(tmp_path: Path, change: str) -> None:
    (tmp_path / "a").write_text("one")
    before = digest_tree(tmp_path)
    if change == "rename":
        (tmp_path / "a").rename(tmp_path / "b")
    elif change == "edit":
        (tmp_path / "a").write_text("two")
    else:
        (tmp_path / "c").touch()
    assert digest_tree(tmp_path) != before


def test_a_lock_is_refused_while_held_and_freed_by_a_kill(root: Path, tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time\nfrom pathlib import Path\nfrom pipeline.files import locked\n"
         "with locked(Path(sys.argv[1]), ''):\n    print('held', flush=True)\n    time.sleep(60)", str(tmp_path / "lock")],
        cwd=root, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="busy here"), locked(tmp_path / "lock", "busy here"):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path / "lock", "busy here"):
        pass
