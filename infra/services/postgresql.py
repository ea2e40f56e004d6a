"""PostgreSQL from the system's package, as a server of this checkout's own: its data, its port, its passwords.

It refuses to run as root. Root's server therefore runs as the package's account `postgres`, or as `nobody`.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

from infra.services.credentials import Credentials
from infra.services.service import HOST, Service
from pipeline.errors import UserError

ACCOUNTS = ("postgres", "nobody")
USUAL = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
MISSING = (
    "PostgreSQL is not installed\n  apt-get install postgresql, or do without it: services=small, or services.database=sqlite"
)
DATABASES: Mapping[str, str] = {"prefect": "prefect", "mlflow": "mlflow", "mlflow_users": "mlflow"}
"""Databases and the roles that own them."""


def service(folder: Path, port: int, credentials: Credentials, account: str) -> Service:
    """The server over `folder`/data; its settings besides the port are the package's."""
    data = folder / "data"
    return Service(
        name="PostgreSQL",
        command=(
            *(str(programs(data) / "postgres"), "-D", str(data), "-p", str(port)),
            *("-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories="),
        ),
        health=f"postgresql://{HOST}:{port}",
        address=f"postgresql://{HOST}:{port}",
        environment={**os.environ, "LC_ALL": "C.UTF-8"},
        folder=folder,
        stop=signal.SIGINT,  # it then ends its clients' sessions; SIGTERM would wait for them
        account=account,
        prepare=partial(initialise, folder, credentials, account),
        settle=partial(create_databases, port, credentials),
    )


@cache
def installed() -> tuple[Path, ...]:
    """Folders that hold a server's programs, the newest version first."""
    found = {path for pattern in USUAL for path in Path("/").glob(pattern.lstrip("/"))}
    if asked := shutil.which("pg_config"):
        said = subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()
        found |= {Path(said)} if said else set()
    complete = [path for path in found if all(os.access(path / name, os.X_OK) for name in ("initdb", "postgres", "pg_isready"))]
    return tuple(sorted(complete, key=version, reverse=True))


@cache
def version(programs: Path) -> int:
    """Major version of the server in a folder; 0 when it does not say."""
    said = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"(\d+)", said)
    return int(number[1]) if number else 0


def programs(data: Path) -> Path:
    """The folder of the programs that fit `data`: of its own version, or the newest for new data. UserError without any."""
    if not installed():
        raise UserError(MISSING)
    if not (data / "PG_VERSION").exists():
        return installed()[0]
    wanted = (data / "PG_VERSION").read_text().strip()
    fitting = [path for path in installed() if str(version(path)) == wanted]
    if not fitting:
        raise UserError(f"{data}: was written by PostgreSQL {wanted}, which is not here\n  apt-get install postgresql-{wanted}")
    return fitting[0]


def unprivileged_account() -> str:
    """Whom the server runs as: empty for the present account, unless that is root. UserError when there is nobody."""
    if os.geteuid() != 0:
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ACCOUNTS:
        if name in known:
            return name
    raise UserError(f"PostgreSQL refuses to run as root, and this machine has no account {' or '.join(ACCOUNTS)}")


def initialise(folder: Path, credentials: Credentials, account: str) -> None:
    """Make the data folder, with the administrator's password; as it is when it exists. UserError names what is in the way."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if account:
        own(folder, account)
    if (data / "PG_VERSION").exists():
        return
    shutil.rmtree(data, ignore_errors=True)  # an earlier start was killed half-way
    beside = folder / "new"
    shutil.rmtree(beside, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=folder) as password:
        password.write(credentials.postgresql)
        password.flush()
        if account:
            shutil.chown(password.name, account)
        options = [
            "--username=postgres",
            f"--pwfile={password.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        words = [str(programs(data) / "initdb"), "-D", str(beside), *options]
        groups: list[str] | None = [] if account else None
        done = subprocess.run(
            words, user=account or None, extra_groups=groups, cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise UserError(f"initdb failed:\n{(done.stderr or done.stdout).strip()}")
    os.replace(beside, data)


def own(folder: Path, account: str) -> None:
    """Give `folder` to `account`. UserError when the account cannot get there."""
    shutil.chown(folder, account)
    tried = subprocess.run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], user=account, extra_groups=[], cwd="/", check=False)
    if tried.returncode:
        closed = next((path for path in reversed(folder.parents) if not path.stat().st_mode & 0o001), folder)
        raise UserError(
            f"PostgreSQL refuses to run as root, and the account {account} may not enter {closed}\n"
            f"  run this as another user, or: chmod o+x {closed}"
        )


def is_ready(port: int) -> bool:
    """Whether a server takes connections there."""
    if not installed():
        return False
    words = [str(installed()[0] / "pg_isready"), "--quiet", "--timeout=3", f"--host={HOST}", f"--port={port}"]
    return subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode == 0


def create_databases(port: int, credentials: Credentials) -> None:
    """The roles with their passwords, and their databases, where they are not there already."""
    import psycopg2
    from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, encrypt_password

    passwords = {"prefect": credentials.prefect_database, "mlflow": credentials.mlflow_database}
    try:
        connection = psycopg2.connect(
            host=HOST, port=port, user="postgres", password=credentials.postgresql, dbname="postgres", connect_timeout=30
        )
    except psycopg2.Error as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"PostgreSQL: its administrator is refused, so its data are of other credentials.json: {reason}"
        ) from error
    try:
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)  # a database cannot be made inside a transaction
        with connection.cursor() as cursor:
            cursor.execute("select rolname from pg_roles")
            roles = {name for (name,) in cursor.fetchall()}
            cursor.execute("select datname from pg_database")
            databases = {name for (name,) in cursor.fetchall()}
            for role, password in passwords.items():
                scrambled = encrypt_password(
                    password, role, connection, "scram-sha-256"
                )  # the server's log never sees the password
                cursor.execute(f"{'alter' if role in roles else 'create'} role {role} login password %s", (scrambled,))
            for database in DATABASES.keys() - databases:
                cursor.execute(f"create database {database} owner {DATABASES[database]}")
    finally:
        connection.close()
