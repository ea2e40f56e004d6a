"""Where a run of the line works: in the checkout, or with overrides in a git worktree of its own.

A worktree starts from the checkout as it is, edits not yet committed included, shares DVC's cache, and ends as a commit on a
branch `runs/...`: that commit's params.yaml and dvc.lock say exactly what was made from what, and `dvc checkout` brings it back.
So several runs with different settings can go on side by side, and none touches the checkout's own results.
"""

import configparser
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline import settings
from pipeline.errors import DataError, UserError
from pipeline.layout import RUNS
from pipeline.process import run_streamed

CODE = ("conf", "flows", "infra", "ops_cuda", "pipeline", "dvc.yaml")
"""New files here belong to a run although nobody has committed them yet; elsewhere they may be gigabytes of pictures."""
RESULT = ("params.yaml", "dvc.lock", "source.json")
_NOBODY = ("-c", "user.name=Detectline", "-c", "user.email=detectline@localhost")
_SET_INSIDE_HOOKS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A working copy and the settings of the run in it."""

    root: Path
    config: settings.Settings
    branch: str | None = None
    """The branch that the result is committed to; None in the checkout itself, where committing is the user's."""


def own_worktree(checkout: Path, name: str, overrides: Sequence[str]) -> Workspace:
    """A worktree below `work/runs` for one run with `overrides`, its params.yaml written, on a new branch `runs/...`.

    The overrides come on top of the checkout's own, those that its params.yaml was written with.

    UserError when the checkout is no git repository with a commit, or the data is missing.
    """
    overrides = settings.on_top(overrides, checkout)
    config = settings.check(settings.compose(overrides, checkout))
    require_source(config.dataset.source, checkout)
    base = commit_of(checkout)
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"
    root, branch = checkout / RUNS / name, f"runs/{name}"
    git(checkout, "worktree", "add", "--quiet", "-b", branch, str(root), base)
    share_cache(checkout, root)
    source = local_source(config.dataset.source, checkout, root)
    if source != config.dataset.source:
        overrides = [*(word for word in overrides if not word.startswith("dataset.source=")), f"dataset.source={source}"]
    return Workspace(root, settings.write_params(overrides, root), branch)


def commit_of(checkout: Path) -> str:
    """A commit of the checkout's files as they are: HEAD, or one on top of it that no branch names yet.

    The checkout's own index and branches stay untouched. UserError outside a repository with a commit.
    """
    try:
        head = git(checkout, "rev-parse", "--verify", "HEAD")
    except UserError as error:
        raise UserError(
            f"{checkout}: a run with overrides needs a git repository with a commit: it works in a worktree of its own\n"
            "  without git: python -m pipeline config OVERRIDES, then python -m flows.line"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(checkout, "read-tree", "HEAD", env=index)
        git(checkout, "add", "--update", ".", env=index)
        git(checkout, "add", *(name for name in CODE if (checkout / name).exists()), env=index)
        tree = git(checkout, "write-tree", env=index)
    if tree == git(checkout, "rev-parse", "HEAD^{tree}"):
        return head
    return git(checkout, *identity(checkout), "commit-tree", tree, "-p", head, "-m", "The checkout's edits, as a run took them")


def share_cache(checkout: Path, root: Path) -> None:
    """Let DVC in `root` use the cache of `checkout`, and its local settings (remotes, credentials) besides.

    Files are linked from the cache where the file system can: a worktree then costs next to no space.
    """
    lines: list[str] = []
    ended = run_streamed([sys.executable, "-m", "dvc", "cache", "dir"], lines.append, cwd=checkout)
    if ended.code != 0 or not lines:
        raise UserError("\n".join(["dvc cannot say where its cache is:", *lines]))
    local = configparser.RawConfigParser()
    local.optionxform = str  # type: ignore[assignment, method-assign]  # keys keep their capitals
    local.read(checkout / ".dvc/config.local")
    if not local.has_section("cache"):
        local.add_section("cache")
    local.set("cache", "dir", str((checkout / lines[-1]).resolve()))
    local.set("cache", "type", "reflink,hardlink,copy")
    private = os.open(root / ".dvc/config.local", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it may hold a remote's keys
    with os.fdopen(private, "w") as file:
        local.write(file)


def local_source(source: str, checkout: Path, root: Path) -> str:
    """The data's place as seen from `root`: a path that git or DVC brings there stays, any other becomes absolute."""
    if "://" in source or os.path.isabs(source) or (root / source).exists():
        return source
    if (root / f"{source}.dvc").exists():
        lines: list[str] = []
        if run_streamed([sys.executable, "-m", "dvc", "checkout", f"{source}.dvc"], lines.append, cwd=root).code != 0:
            raise UserError("\n".join([f"{source}: dvc cannot bring it into {root}:", *lines]))
        return source
    return str((checkout / source).resolve())


def require_source(source: str, checkout: Path) -> None:
    """DataError when the data is missing: DVC would say so too, but not which setting names it."""
    if "://" not in source and not (checkout / source).exists():
        raise DataError(source, "no such file or folder", "set dataset.source=PATH to a folder or an archive (.zip, .tar)")


def keep(place: Workspace, message: str) -> str:
    """Commit the run's result to its branch and push its data when DVC has a default remote; the commit.

    With storage.exchange the branch goes to the repository `origin`. UserError when a push fails: the commit stands, and the
    message says how to push the data later.
    """
    known = git(place.root, "ls-files", *RESULT).split()  # one that is gone now is committed as gone
    git(place.root, "add", "--force", "--all", *(name for name in RESULT if name in known or (place.root / name).exists()))
    # hooks are for people: a formatter that is not installed must not lose a run
    git(place.root, *identity(place.root), "commit", "--quiet", "--no-verify", "--allow-empty", "-m", message)
    commit = git(place.root, "rev-parse", "HEAD")
    if place.config.storage.exchange:  # the data has been pushed stage by stage
        git(place.root, "push", "--quiet", "--no-verify", "origin", f"HEAD:refs/heads/{place.branch}")
        return commit
    remotes: list[str] = []
    run_streamed([sys.executable, "-m", "dvc", "config", "core.remote"], remotes.append, cwd=place.root)
    if any(remotes):
        lines: list[str] = []
        if run_streamed([sys.executable, "-m", "dvc", "push"], lines.append, cwd=place.root).code != 0:
            todo = f"the result is committed on {place.branch}; push its data by: cd {place.root} && dvc push"
            raise UserError("\n".join([f"dvc push to {remotes[-1]} failed:", *lines[-5:], f"  {todo}"]))
    return commit


def discard(place: Workspace, checkout: Path) -> None:
    """Clear away the worktree and the branch of a run that made nothing; the checkout itself is no such place."""
    if place.branch is not None:
        git(checkout, "worktree", "remove", "--force", str(place.root))
        git(checkout, "branch", "--quiet", "-D", place.branch)


def identity(root: Path) -> tuple[str, ...]:
    """Options that name an author when the user has told git none."""
    try:
        git(root, "config", "user.email")
    except UserError:
        return _NOBODY
    return ()


def git(root: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    """Output of one git command in `root`; UserError with git's own words when it fails."""
    clean = {name: value for name, value in os.environ.items() if name not in _SET_INSIDE_HOOKS}
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, env=clean | dict(env or {}))
    if done.returncode != 0:
        raise UserError(f"git {words[0]} failed in {root}: {done.stderr.strip()}")
    return done.stdout.strip()
