"""Stages on machines that share nothing: data goes through DVC's remote, the record of it (dvc.lock) through git.

`python -m flows.exchange STAGE... --branch BRANCH` does on one machine, in a clone of the repository, what a stage needs:
git brings the branch, `dvc pull` exactly what the stages read of others' results, `dvc repro` runs them, `dvc push` sends
what they made, and a commit with dvc.lock goes back to the branch. Without --branch, git is left to whoever calls. A flow with
`storage.exchange=true` does the same around each of its stages. No Prefect here: it takes seconds to import.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.repro import CHECKOUT, bring_up_to_date, child_environment
from flows.workspace import RESULT, git, identity
from pipeline.errors import ConfigError, UserError
from pipeline.files import locked, write_atomically
from pipeline.layout import Layout
from pipeline.process import run_streamed
from pipeline.quiet import be_offline

USAGE = """usage: python -m flows.exchange STAGE... [--branch BRANCH]

Runs stages on a machine that shares nothing with the others: their inputs come from DVC's default remote, their results go
there. With --branch, dvc.lock comes from that branch of the remote repository `origin`, and goes back to it as a commit."""
RECORD = "dvc.lock"
RESULTS = "Results: "
"""Begins the messages of commits that hold results alone."""
TRIES = 5
"""Pushes of a branch that others push to as well; each failure means that somebody else has got through."""
_NAMED = re.compile(r"\$\{([\w.]+)\}")

Say = Callable[[str], None]


def inputs(stages: Sequence[str], root: Path) -> list[str]:
    """What `stages` read that others make: results of stages that are not among them, and sources that DVC tracks.

    Sorted paths relative to `root`. ConfigError for a stage that dvc.yaml does not have.
    """
    import yaml

    known = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    values = yaml.safe_load((root / "params.yaml").read_text())
    for stage in stages:
        if stage not in known:
            raise ConfigError("stage", stage, f"is none of dvc.yaml; its stages: {', '.join(known)}")
    elsewhere = [made for name, entry in known.items() if name not in stages for made in results(entry)]
    read = {_filled(dep, values) for stage in stages for dep in known[stage].get("deps", ())}
    return sorted(path for path in read if any(_overlap(path, made) for made in elsewhere) or _tracked(path, root))


def results(entry: dict[str, Any]) -> Iterator[str]:
    """Paths that a stage of dvc.yaml makes: outs, metrics and plots, with or without options of their own."""
    for kind in ("outs", "metrics", "plots"):
        for made in entry.get(kind, ()):
            yield next(iter(made)) if isinstance(made, dict) else made


def pull_inputs(stages: Sequence[str], root: Path, say: Say) -> None:
    """Bring what `stages` need, and nothing else, from DVC's default remote. UserError when something is not there."""
    wanted = inputs(stages, root)
    if not wanted:
        return
    say(f"dvc pull {' '.join(wanted)}")
    todo = f"push them where they were made: python -m flows.exchange STAGE, or dvc push {' '.join(wanted)}"
    _dvc(("pull", *wanted), root, f"{' '.join(stages)}: inputs could not be pulled from DVC's remote", todo)


def push_results(stages: Sequence[str], root: Path, say: Say) -> None:
    """Send what `stages` made to DVC's default remote. UserError when it cannot be reached."""
    say(f"dvc push {' '.join(stages)}")
    todo = f"the results are here, in {root}, and in DVC's cache; push them later by: dvc push {' '.join(stages)}"
    _dvc(("push", *stages), root, f"{' '.join(stages)}: results could not be pushed to DVC's remote", todo)


def receive(root: Path, branch: str) -> None:
    """Bring `root` to the tip of `branch` of origin, if there is one. UserError when work done here is in the way.

    Another branch that is checked out here stays where it is, and HEAD is detached from it: results must not move it. A shallow
    clone is a run's own, which Prefect made of another branch, and holds no work: it goes there whatever it was.
    """
    if git(root, "branch", "--show-current") not in ("", branch):
        git(root, "checkout", "--quiet", "--detach")
    if not _on_origin(root, branch):
        return
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        git(root, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    else:
        git(root, "merge", "--quiet", "--ff-only", "FETCH_HEAD")


def publish(root: Path, branch: str, stages: Sequence[str], say: Say) -> str:
    """Commit dvc.lock and push it to `branch` of origin; the commit. UserError when that fails.

    When others have pushed meanwhile, their commits stay and the entries of `stages` are put into their dvc.lock.
    """
    present = [name for name in RESULT if (root / name).exists()]
    for _ in range(TRIES):
        git(root, "add", "--force", *present)
        if git(root, "diff", "--cached", "--name-only", "--", *present):
            words = ("commit", "--quiet", "--no-verify", "-m", f"{RESULTS}{', '.join(stages)}", "--", *present)
            git(root, *identity(root), *words)
        try:
            git(root, "push", "--quiet", "--no-verify", "origin", f"HEAD:refs/heads/{branch}")
        except UserError:
            if not _on_origin(root, branch) or _contains(root, "FETCH_HEAD"):
                raise  # nobody was faster: there is another reason
            _onto_theirs(root, stages)
        else:
            commit = git(root, "rev-parse", "HEAD")
            say(f"origin/{branch} is {commit[:12]}")
            return commit
    raise UserError(f"git push to {branch} failed {TRIES} times, each time somebody else was faster; run the same command again")


def run_stages(stages: Sequence[str], root: Path, branch: str | None, say: Say) -> None:
    """`stages` in this order, in the clone `root`, as the module's docstring says. UserError with the words of what failed."""
    if branch:
        receive(root, branch)
    pull_inputs(stages, root, say)
    for stage in stages:
        bring_up_to_date(stage, root, {}, say, pull=True)
    push_results(stages, root, say)
    if branch:
        publish(root, branch, stages, say)


def merged_record(theirs: dict[str, Any], ours: dict[str, Any], stages: Sequence[str]) -> dict[str, Any]:
    """Their dvc.lock with our entries of `stages`: each says by itself what was made from what."""
    entries = dict(theirs.get("stages", {}))
    entries |= {stage: ours["stages"][stage] for stage in stages if stage in ours.get("stages", {})}
    return {**ours, **theirs, "stages": entries}


def _onto_theirs(root: Path, stages: Sequence[str]) -> None:
    """Leave our commit for FETCH_HEAD, with our entries in its dvc.lock. UserError where commits other than results would go."""
    import yaml

    subjects = git(root, "log", "--format=%s", "FETCH_HEAD..HEAD").splitlines()
    if [one for one in subjects if not one.startswith(RESULTS)]:
        raise UserError(
            f"others have pushed, and this clone has commits that they have not, such as {subjects[-1]!r}\n"
            "  bring both together (git rebase), and run the same command again"
        )
    ours = yaml.safe_load((root / RECORD).read_text())
    git(root, "reset", "--quiet", "--keep", "FETCH_HEAD")
    theirs = yaml.safe_load((root / RECORD).read_text()) if (root / RECORD).exists() else {}
    merged = merged_record(theirs, ours, stages)
    if merged != theirs:  # else it would be the same record in other words
        write_atomically(root / RECORD, yaml.safe_dump(merged, sort_keys=False).encode())


def _on_origin(root: Path, branch: str) -> bool:
    """Fetch `branch`; whether origin has it. UserError when origin cannot be reached."""
    if not git(root, "ls-remote", "--heads", "origin", f"refs/heads/{branch}"):
        return False
    git(root, "fetch", "--quiet", "origin", f"refs/heads/{branch}")
    return True


def _contains(root: Path, commit: str) -> bool:
    """Whether `commit` is part of what is checked out."""
    return git(root, "merge-base", commit, "HEAD") == git(root, "rev-parse", commit)


def _dvc(words: Sequence[str], root: Path, failed: str, todo: str) -> None:
    lines: list[str] = []
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *words]
    if run_streamed(command, lines.append, env=child_environment({}), cwd=root).code != 0:
        raise UserError("\n".join([f"{failed}:", *lines[-8:], f"  {todo}"]))


def _filled(path: str, values: Any) -> str:
    """`path` with ${a.b} replaced by what params.yaml says."""

    def value(match: re.Match[str]) -> str:
        found = values
        for key in match[1].split("."):
            found = found[key]
        return str(found)

    return _NAMED.sub(value, path)


def _overlap(one: str, other: str) -> bool:
    """Whether the paths are the same, or one is a folder around the other."""
    first, second = Path(one), Path(other)
    return first == second or first in second.parents or second in first.parents


def _tracked(path: str, root: Path) -> bool:
    """Whether DVC tracks `path`, or a folder around it, by a .dvc file."""
    if "://" in path or Path(path).is_absolute():
        return False
    return any((root / f"{part}.dvc").is_file() for part in (Path(path), *Path(path).parents) if part.name)


def main(arguments: Sequence[str]) -> int:
    """Run the stages of the command line; returns the exit status."""
    be_offline()
    words = list(arguments)
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0 if words else 2
    try:
        branch = _option(words, "--branch")
        if not words:
            raise ConfigError("stage", None, "is missing: name at least one, such as train")
        with locked(Layout(CHECKOUT).work("line.lock"), "work/line.lock: a flow runs in this checkout; wait for it to end"):
            run_stages(words, CHECKOUT, branch, lambda line: print(line, flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _option(words: list[str], name: str) -> str | None:
    """The value after `name`, both taken out of `words`; None without it."""
    if name not in words:
        return None
    position = words.index(name)
    if position + 1 == len(words):
        raise ConfigError(name, None, "needs a value")
    value = words[position + 1]
    del words[position : position + 2]
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
