"""The image's recipe: pinned, installed from the lock by hash, nobody's root, and nothing in it that is not named."""

import fnmatch
import re

import pytest

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "infra/Dockerfile").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and arguments of each, continued lines joined, comments dropped."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def problems(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found, stages = [], [rest.split() for name, rest in instructions(text) if name == "FROM"]
    found += [
        f"{words[0]} is not pinned"
        for words in stages
        if not re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:\w+)?", words[0])
    ]
    last = instructions(text.split("\nFROM ")[-1].split("\n", 1)[1])
    user = [rest for name, rest in last if name == "USER"]
    if not user or user[-1].split(":")[0] in ("root", "0"):
        found.append("the last stage runs as root")
    installs = [rest for name, rest in instructions(text) if name == "RUN" and re.search(r"\bpip install\b", rest)]
    if not installs or not all("--require-hashes" in rest and "requirements.lock" in rest for rest in installs):
        found.append("something is installed that the lock does not name by hash")
    if any(re.search(r"\bpip install\b", rest) for name, rest in last if name == "RUN"):
        found.append("the last stage installs, and keeps what that leaves")
    for name, rest in instructions(text):
        if name == "COPY" and "--from=" not in rest:
            found += [f"COPY {source}: no such file" for source in rest.split()[:-1] if not (ROOT / source).exists()]
        if name in ("ARG", "ENV") and re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", rest, re.IGNORECASE):
            found.append(f"{name} holds a secret")
        if name == "ADD":
            found.append("ADD fetches and unpacks what nobody checked")
    return found


def test_the_image_is_pinned_hashed_and_nobodys_root() -> None:
    assert problems(DOCKERFILE) == []
    assert len([name for name, _ in instructions(DOCKERFILE) if name == "FROM"]) == 2


@pytest.mark.parametrize(
    "before, after, said",
    [
        ("FROM python:3.11.14-slim-bookworm AS", "FROM python:3 AS", "not pinned"),
        ("USER 1000:1000", "USER 0:0", "as root"),
        ("USER 1000:1000\n", "", "as root"),
        ("--require-hashes ", "", "by hash"),
        ("COPY conf /app/conf", "COPY config /app/conf", "no such file"),
        ("WORKDIR /app", "WORKDIR /app\nRUN pip install --require-hashes -r requirements.lock", "last stage installs"),
        ("WORKDIR /app", "ARG GIT_TOKEN", "holds a secret"),
    ],
)
def test_a_planted_fault_is_found(before: str, after: str, said: str) -> None:
    assert before in DOCKERFILE
    assert any(said in problem for problem in problems(DOCKERFILE.replace(before, after)))


def test_nothing_writes_outside_of_tmp() -> None:
    """Pods have a read-only file system: what Python's, DVC's and numba's caches default to is not writable there."""
    set_to = dict(re.findall(r"\b([A-Z_]+)=(\S+)", " ".join(rest for name, rest in instructions(DOCKERFILE) if name == "ENV")))
    assert all(set_to[name].startswith("/tmp") for name in ("HOME", "DVC_SITE_CACHE_DIR", "NUMBA_CACHE_DIR"))
    assert set_to["PYTHONDONTWRITEBYTECODE"] == "1"


def test_python_is_one_that_the_project_takes() -> None:
    versions = set(re.findall(r"^FROM python:(3\.\d+)\.\d+", DOCKERFILE, re.MULTILINE))
    assert versions <= {"3.11", "3.12"} and len(versions) == 1


def test_the_context_is_what_the_image_copies_and_nothing_else() -> None:
    """Ignored are all files, but for those that the image takes: pictures, keys and .git never reach the builder."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    sources = {
        source
        for name, rest in instructions(DOCKERFILE)
        if name == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    }
    assert allowed == sources
    again = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    assert all(
        any(fnmatch.fnmatch(name, pattern) for pattern in again) for name in (".env", ".env.local", "__pycache__", "a.pyc")
    )
