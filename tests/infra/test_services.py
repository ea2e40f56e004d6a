"""The parts of infra.local, with small processes in the place of servers: kept, restarted, ended, found again, refused."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.services import state as states
from infra.services.credentials import FILE, load_or_make
from infra.services.keeper import main as keeper  # noqa: F401  it must import without a library
from infra.services.plan import known, plan
from infra.services.service import Service
from infra.services.state import Birth, State
from infra.services.supervisor import MOST_RESTARTS, Kept
from infra.services.table import table
from pipeline import settings
from pipeline.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[2]
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENTAL = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE, {how});"
    "child.stdout.readline(); print('up', flush=True); time.sleep(602)"
)


def service(folder: Path, code: str, **more: object) -> Service:
    return Service(
        name="Small",
        command=(sys.executable, "-c", code),
        health="http://127.0.0.1:9/",
        environment={**os.environ},
        folder=folder,
        **more,
    )  # type: ignore[arg-type]


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def says_up(kept: Kept) -> bool:
    return kept.log.exists() and "up" in kept.log.read_text()


def test_a_service_that_will_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    one = Kept(service(tmp_path, STUBBORN, grace=0.3), tmp_path)
    one.start()
    until(lambda: says_up(one))
    family = psutil.Process(one.entry.process.pid).children(recursive=True)
    one.stop()
    assert family and not [process for process in family if process.is_running()]
    assert one.entry.process is None and not one.alive


@pytest.mark.parametrize("how", ["process_group=0", "start_new_session=True"])
def test_what_a_dead_service_leaves_behind_ends_too(how: str, tmp_path: Path) -> None:
    """The service is killed; its child, in a group or session of its own, would hold the port, or work on for nobody.

    The child heeds no SIGTERM and has a child too.
    """
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(601)']); {STUBBORN}"
    one = Kept(service(tmp_path, PARENTAL.format(child=child, how=how)), tmp_path)
    one.start()
    until(lambda: says_up(one))
    main = psutil.Process(one.entry.process.pid).children()[0]
    family = main.children(recursive=True)
    assert len(family) == 2
    main.kill()
    until(lambda: not one.alive)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    one.stop()


def test_everything_ends_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from infra.services.supervisor import Kept; "
        "from infra.services.service import Service\n"
        f"one = Kept(Service(name='Small', command=(sys.executable, '-c', {STUBBORN!r}), health='', "
        f"environment={{**os.environ}}, folder=Path({str(tmp_path)!r}), grace=0.3), Path({str(tmp_path)!r}))\n"
        "one.start(); print(one.entry.process.pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    keeper_pid = int(starter.stdout.readline())
    until(lambda: (tmp_path / "small.log").read_text().startswith("up"))
    family = [psutil.Process(keeper_pid), *psutil.Process(keeper_pid).children(recursive=True)]
    assert len(family) == 2
    starter.kill()
    starter.wait()
    until(lambda: not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE])


def test_it_is_restarted_until_that_is_hopeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("infra.services.supervisor.time.monotonic", lambda: clock[0])
    one = Kept(service(tmp_path, ""), tmp_path)
    started: list[float] = []
    monkeypatch.setattr(one, "start", lambda: started.append(clock[0]))

    def watch() -> None:
        while clock[0] < 290:
            one.tend(wanted=True)  # it never lives
            clock[0] += 0.25

    with pytest.raises(UserError, match=r"Small ended 6 times in 300 s; see .*small\.log"):
        watch()
    assert len(started) == MOST_RESTARTS == one.restarts
    pauses = [later - earlier for earlier, later in zip([0.0, *started], started, strict=False)]
    assert pauses == sorted(pauses) and pauses[0] < 1 and pauses[-1] >= 8, "each time a little later"
    started.clear()
    clock[0] += 1000  # long ago: forgiven
    while not started:
        one.tend(wanted=True)
        clock[0] += 0.25


def test_one_that_is_to_be_down_stays_down_and_comes_back(tmp_path: Path) -> None:
    one = Kept(service(tmp_path, STUBBORN, grace=0.3), tmp_path)
    one.start()
    assert one.tend(wanted=False) and not one.alive
    assert not one.tend(wanted=False) and not one.alive
    assert one.tend(wanted=True) and one.alive and one.restarts == 0
    one.stop()


def test_a_state_of_before_a_reboot_is_known_by_the_time_of_birth() -> None:
    own = Birth.of(os.getpid())
    assert own.lives()
    assert not replace(own, ticks=own.ticks - 1).lives(), "the same number, another process"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    born = Birth.of(gone.pid)
    gone.wait()
    assert not born.lives()


def test_status_tells_what_is_down(tmp_path: Path) -> None:
    one = Kept(service(tmp_path, STUBBORN, grace=0.3), tmp_path)
    state = State(supervisor=Birth.of(os.getpid()), settings=settings.check(settings.compose([], CHECKOUT)).services)
    state.services = {"Small": one.entry}
    assert table(state)[1] is False and " down " in table(state)[0]
    one.start()
    state.services = {"Small": one.entry}
    state.write(tmp_path)
    text, well = table(states.read(tmp_path))
    assert not well and " unwell " in text, "it runs, and nothing answers at its address"
    one.stop()


def test_passwords_are_made_once_and_for_one_reader(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        first = load_or_make(tmp_path)
    finally:
        os.umask(before)
    path = tmp_path / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make(tmp_path) == first
    values = json.loads(path.read_text())
    assert len(set(values.values())) == len(values) and all(len(value) >= 20 for value in values.values())
    assert not [value for value in values.values() if value in repr(first)]
    path.chmod(0o640)
    with pytest.raises(UserError, match="others may read it\n  chmod 600"):
        load_or_make(tmp_path)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(UserError, match="is damaged; it must hold postgresql"):
        load_or_make(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("infra.services.postgresql.installed", lambda: (Path("/programs"),))
    monkeypatch.setattr("infra.services.postgresql.unprivileged_account", lambda: "")
    return tmp_path


@pytest.mark.parametrize(
    "overrides, names",
    [
        ((), ["Prefect", "MLflow", "worker"]),
        (("tracking=off",), ["Prefect", "worker"]),
        (("services=full",), ["PostgreSQL", "SeaweedFS", "Prefect", "MLflow", "worker"]),
        (("services=full", "services.worker=false", "services.database=sqlite"), ["SeaweedFS", "Prefect", "MLflow"]),
    ],
)
def test_settings_say_what_runs(overrides: tuple[str, ...], names: list[str], folder: Path) -> None:
    assert [one.name for one in plan(settings.check(settings.compose(overrides, CHECKOUT)), folder).services] == names


@pytest.mark.parametrize("choice", ["small", "full"])
@pytest.mark.parametrize("guarded", [True, False])
def test_one_setting_puts_passwords_before_both(choice: str, guarded: bool, folder: Path) -> None:
    overrides = [f"services={choice}", f"services.authentication={str(guarded).lower()}"]
    planned = plan(settings.check(settings.compose(overrides, CHECKOUT)), folder)
    by_name = {one.name: one for one in planned.services}
    assert ("PREFECT_SERVER_API_AUTH_STRING" in by_name["Prefect"].environment) == guarded
    assert ("basic-auth" in by_name["MLflow"].command) == guarded
    assert ("PREFECT_API_AUTH_STRING" in by_name["worker"].environment) == guarded
    assert ("PGPASSWORD" in by_name["MLflow"].environment) == (choice == "full"), "a PostgreSQL of the user's own has its own"
    assert "PGPASSWORD" not in by_name["worker"].environment, "flows have no business in the servers' tables"
    assert not {name for name in by_name["worker"].environment if "SERVER_API_AUTH" in name or "ADMIN_PASSWORD" in name}
    secrets = json.loads((folder / "work/services" / FILE).read_text()).values()
    assert not [one.name for one in planned.services for word in one.command for secret in secrets if secret in word]


def test_seaweedfs_takes_no_port_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the usual port is somebody else's, and all of its ports are searched for."""
    monkeypatch.setattr("infra.services.seaweedfs.free_port", lambda preferred=0: preferred + 1)
    planned = plan(settings.check(settings.compose(["services=full"], CHECKOUT)), folder)
    command = next(one for one in planned.services if one.name == "SeaweedFS").command
    ports = [word.partition("=")[2] for word in command if word.partition("=")[0].endswith(".port")]
    assert len(ports) == 4 == len(set(ports))


def test_s3_keys_of_ones_own_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of another server")
    planned = plan(settings.check(settings.compose(["services=full"], CHECKOUT)), folder)
    by_name = {one.name: one for one in planned.services}
    assert by_name["worker"].environment["AWS_ACCESS_KEY_ID"] == "of another server"
    assert "AWS_ENDPOINT_URL" not in by_name["worker"].environment
    assert by_name["MLflow"].environment["AWS_ACCESS_KEY_ID"] != "of another server"


def test_a_shell_that_has_our_keys_gets_them_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`env` is asked a second time, after another start on other ports."""
    chosen = settings.check(settings.compose(["services=full"], CHECKOUT))
    plan(chosen, folder)
    at = {"Prefect": "http://127.0.0.1:1", "SeaweedFS": "http://127.0.0.1:2"}
    first = known(at, chosen.services, folder / "work/services")
    for name, value in first.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another server")
    second = known(at | {"SeaweedFS": "http://127.0.0.1:3"}, chosen.services, folder / "work/services")
    assert second == first | {"AWS_ENDPOINT_URL": "http://127.0.0.1:3", "AWS_SESSION_TOKEN": ""}


def test_while_they_start_nothing_is_known(folder: Path) -> None:
    chosen = settings.check(settings.compose(["services=full"], CHECKOUT))
    with pytest.raises(UserError, match="are being started"):
        known({"PostgreSQL": "postgresql://127.0.0.1:1"}, chosen.services, folder)


def test_without_postgresql_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.services.postgresql.installed", lambda: ())
    with pytest.raises(UserError, match=r"apt-get install postgresql, or do without it: services=small"):
        plan(settings.check(settings.compose(["services=full"], CHECKOUT)), folder)


def test_data_of_another_postgresql_are_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder / "work/services/postgresql/data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    monkeypatch.setattr("infra.services.postgresql.version", lambda _: 17)
    with pytest.raises(UserError, match=r"was written by PostgreSQL 9, which is not here\n  apt-get install postgresql-9"):
        plan(settings.check(settings.compose(["services=full"], CHECKOUT)), folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs under another account")
def test_a_folder_that_the_account_may_not_enter_is_named(tmp_path: Path) -> None:
    from infra.services.postgresql import own

    closed = tmp_path / "closed"
    (closed / "postgresql").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(UserError, match=r"may not enter .*\n  run this as another user, or: chmod o\+x"):
        own(closed / "postgresql", "nobody")


def test_a_second_up_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As when two people, or a script and a person, start them at once."""
    from infra import local

    state = State(supervisor=Birth.of(os.getpid()), settings=settings.check(settings.compose([], CHECKOUT)).services)
    (tmp_path / "work/services").mkdir(parents=True)
    state.write(tmp_path / "work/services")
    looks = []

    def alive() -> bool:
        looks.append(1)
        if len(looks) == 3:
            state.ready = True
            state.write(tmp_path / "work/services")
        return True

    assert local.when_ready(tmp_path, alive, tmp_path / "none.log") == local.status(tmp_path)
    assert len(looks) == 3
    with pytest.raises(UserError, match="ended while they were being started"):
        local.when_ready(tmp_path, lambda: False, tmp_path / "none.log")


def test_up_down_and_status_without_services(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from infra import local

    assert local.status(tmp_path) == 1
    assert local.down(tmp_path) == 0 == local.down(tmp_path)
    stale = State(
        supervisor=Birth(os.getpid(), "another boot", 1), settings=settings.check(settings.compose([], CHECKOUT)).services
    )
    (tmp_path / "work/services").mkdir(parents=True)
    stale.write(tmp_path / "work/services")
    assert local.status(tmp_path) == 1 and "a reboot, a kill -9" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing runs"):
        local.env(tmp_path)
    assert local.down(tmp_path) == 0, "and the process that has the number now is not touched"
    assert states.read(tmp_path / "work/services") is None
    (tmp_path / "work/services/state.json").write_text('{"supervisor": 7}')
    with pytest.raises(UserError, match="written by another version"):
        local.status(tmp_path)
