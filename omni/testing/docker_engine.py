"""A Docker engine of our own for tests and trials, and images for it that no registry has to be asked for.

Owns one dockerd with its own directories, socket and pid file below one folder, and that nothing of it is left after
`stop`. Needs root and Debian's packages docker.io (the daemon and the command), busybox-static and, for the Python
image, debootstrap. Never touches another engine on the host.

    python -m omni.testing.docker_engine FOLDER start|stop|busybox|python|mysql|redis    (the socket is FOLDER/s)
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from omni.launch import proc
from omni.testing.hosts import Host

PACKAGES = "docker.io busybox-static debootstrap"
_START_S, _STOP_S = 40.0, 30.0
_PYTHON_PACKAGES = "python3.11 python3.11-venv python3.11-dev"
_PATH = "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# As the official images take them: MYSQL_DATABASE, MYSQL_ROOT_PASSWORD, and the server's options as the command.
_MYSQL_ENTRY = """#!/bin/sh
set -e
case "$1" in -*) set -- mariadbd "$@" ;; esac
[ "$1" = mariadbd ] || exec "$@"
if [ ! -d /var/lib/mysql/mysql ]; then
  mariadb-install-db --user=root --datadir=/var/lib/mysql --auth-root-authentication-method=normal >/dev/null
  cat >/tmp/first.sql <<SQL
CREATE DATABASE IF NOT EXISTS $MYSQL_DATABASE;
ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
CREATE USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
SQL
  set -- "$@" --init-file=/tmp/first.sql
fi
exec "$@" --user=root --bind-address=0.0.0.0
"""
_REDIS_ENTRY = """#!/bin/sh
[ "$1" != redis-server ] || set -- "$@" --protected-mode no
exec "$@"
"""
_MIRROR = "http://deb.debian.org/debian"


def missing() -> str:
    """Why no engine can be had here; empty when one can."""
    if os.geteuid() != 0:
        return "only root can run an engine"
    absent = [name for name in ("dockerd", "docker", "runc") if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed (Debian: apt-get install {PACKAGES})" if absent else ""


class DockerEngine:
    """`folder` is made if need be; keep its path short, for sockets lie below it. Its network is the `host`'s."""

    def __init__(self, folder: Path, host: Host | None = None) -> None:
        self.folder = folder
        self._host = host
        self.socket = folder / "s"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def cgroup(self) -> str:
        return f"omni-engine-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}"

    @property
    def environment(self) -> dict[str, str]:
        """For programs that speak to it, docker-compose too. The classic builder needs no further image."""
        return {**os.environ, "DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0",
                "DOCKER_CONFIG": str(self.folder / "client")}  # fmt: skip

    def start(self, *options: str) -> None:
        """Also after `kill`. Raises RuntimeError with the last lines of its log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = self._command(options)
        if self._host is not None:
            argv = self._host.command(argv)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder,
                env=self._surroundings(),
            )  # fmt: skip
        self._started(process)
        deadline = time.monotonic() + _START_S
        while self._try("version").returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} did not start: " + (self.folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def _command(self, options: tuple[str, ...]) -> list[str]:
        return ["dockerd", "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"),
                "--pidfile", str(self.folder / "pid"), "--host", self.url, "--group", "root", "--bridge", "none",
                "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--cgroup-parent", f"/{self.cgroup}",
                "--log-level", "warn", *options]  # fmt: skip

    def _surroundings(self) -> dict[str, str] | None:
        """The daemon's environment; None: ours."""
        return None

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        """It has just been called, and may not answer yet."""

    def kill(self) -> None:
        """SIGKILL to the daemon alone: what runs in it runs on, or not, as its options say."""
        self._end_daemon((signal.SIGKILL,))
        note = self.folder / "exec" / "containerd" / "containerd.pid"
        with contextlib.suppress(OSError, ValueError):
            pid, deadline = int(note.read_text()), time.monotonic() + _STOP_S
            while Path(f"/proc/{pid}").exists() and not proc.is_zombie(pid) and time.monotonic() < deadline:
                time.sleep(0.02)
            note.unlink()  # dockerd takes a zombie that nobody reaps for a containerd that is about to answer

    def stop(self, *, keep_images: bool = False) -> None:
        """Containers, networks, the daemon and (unless images are kept) the whole folder."""
        if self.folder.exists() and self._try("version").returncode != 0:
            with contextlib.suppress(RuntimeError):  # one that was killed: what it ran can be ended only by another
                self.start()
        if self.socket.exists():
            if self._host is not None:
                self._try("swarm", "leave", "--force")  # while it lives, Swarm starts again what is ended
            for what, remove in (("container", ["rm", "--force", "--volumes"]), ("network", ["network", "rm"])):
                query = ["ps", "--all", "--quiet"] if what == "container" else ["network", "ls", "-qf", "type=custom"]
                if ids := self._try(*query).stdout.split():
                    self._try(*remove, *ids)
        self._end_daemon()
        for line in reversed(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()):
            target = line.split()[1]
            if target.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", target], timeout=20, check=False)
        groups = Path("/sys/fs/cgroup")  # not searched to its depth: others' groups come and go meanwhile
        for path in (groups / self.cgroup, *(controller / self.cgroup for controller in groups.iterdir())):
            with contextlib.suppress(OSError):
                path.rmdir()
        if not keep_images:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _end_daemon(self, signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGKILL)) -> None:
        try:
            pid = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return
        for number in signals:
            deadline = time.monotonic() + _STOP_S
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, number)
                while time.monotonic() < deadline and not proc.is_zombie(pid):
                    os.kill(pid, 0)
                    time.sleep(0.05)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if not Path(f"/proc/{pid}").exists() or proc.is_zombie(pid):
                return

    def docker(self, *arguments: str, timeout_s: float = 120, stdin: bytes | None = None) -> str:
        """What `docker ARGUMENTS` printed. Raises RuntimeError with its errors."""
        done = self._try(*arguments, timeout_s=timeout_s, stdin=stdin)
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments[:3])}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def output(self, container: str) -> tuple[str, str]:
        """What the engine has kept of a container's stdout and stderr."""
        done = self._try("logs", container)
        if done.returncode != 0:
            raise RuntimeError(f"docker logs: {done.stderr.strip()[-2000:]}")
        return done.stdout, done.stderr

    def _try(
        self, *arguments: str, timeout_s: float = 60, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *arguments],
            check=False,
            input=stdin or b"",
            capture_output=True,
            env=self.environment,
            timeout=timeout_s,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def has_image(self, tag: str) -> bool:
        return bool(self.docker("image", "ls", "--quiet", tag).strip())

    def import_busybox(self, tag: str = "busybox:latest") -> None:
        """Debian's static busybox with a link for each of its commands."""
        program = shutil.which("busybox")
        if program is None:
            raise RuntimeError("busybox is not installed (Debian: apt-get install busybox-static)")
        names = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=10, check=True).stdout
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for folder in ("bin", "tmp", "etc", "root", "proc", "sys", "dev"):
                info = tarfile.TarInfo(folder)
                info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(info)
            tar.add(program, "bin/busybox")
            for name in names.split():
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                if name != "busybox":
                    tar.addfile(link)
            _add_text(tar, "etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        self.docker("import", "--change", 'CMD ["/bin/sh"]', "-", tag, stdin=out.getvalue())

    def import_debian(
        self, tag: str, packages: str, commands: str = "", changes: tuple[str, ...] = (), timeout_s: float = 900
    ) -> None:
        """Debian 12 with `packages`, as debootstrap and apt lay it; then `commands`; `changes` are a Dockerfile's."""
        base, tree = self.folder / "base", self.folder / "tree"
        if not base.exists():
            _run(["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", f"{base}.new", _MIRROR])
            _as_this_host_reaches_registries(Path(f"{base}.new"))
            Path(f"{base}.new").rename(base)
        shutil.rmtree(tree, ignore_errors=True)
        _run(["cp", "-a", str(base), str(tree)])
        shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
        (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (tree / "usr/sbin/policy-rc.d").chmod(0o755)
        install = f"export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; apt-get install -qq -y {packages}"
        script = f"{install} --no-install-recommends; apt-get clean; {commands or 'true'}"
        _run(["chroot", str(tree), "/bin/sh", "-ec", script], timeout_s)
        (tree / "usr/sbin/policy-rc.d").unlink()
        pack = subprocess.Popen(["tar", "-C", str(tree), "-c", "."], stdout=subprocess.PIPE)
        words = [word for change in (_PATH, *changes) for word in ("--change", change)]
        subprocess.run(
            ["docker", "import", *words, "-", tag],
            stdin=pack.stdout, env=self.environment, timeout=timeout_s, check=True, capture_output=True,
        )  # fmt: skip
        pack.wait(60)
        shutil.rmtree(tree, ignore_errors=True)

    def import_python(self, tag: str = "python:3.11-slim") -> None:
        """A stand-in for the official image: Debian's own Python 3.11 under the same name."""
        links = "ln -s /usr/bin/python3.11 /usr/local/bin/python && ln -s /usr/bin/python3.11 /usr/local/bin/python3"
        self.import_debian(tag, _PYTHON_PACKAGES, links)

    def import_mysql(self, tag: str = "mysql:8.4") -> None:
        """A stand-in for the official image: Debian's MariaDB, with the same environment and `mysqladmin`."""
        entry = f"cat >/usr/local/bin/entry <<'EOF'\n{_MYSQL_ENTRY}EOF\nchmod 755 /usr/local/bin/entry"
        changes = ('ENTRYPOINT ["entry"]', 'CMD ["mariadbd"]', "VOLUME /var/lib/mysql")
        self.import_debian(
            tag, "mariadb-server mariadb-client", f"{entry}; mkdir -p /run/mysqld; rm -rf /var/lib/mysql/*", changes
        )

    def import_redis(self, tag: str = "redis:7") -> None:
        """A stand-in for the official image: Debian's Redis 7, which like it answers other hosts without a password."""
        entry = f"cat >/usr/local/bin/entry <<'EOF'\n{_REDIS_ENTRY}EOF\nchmod 755 /usr/local/bin/entry"
        changes = ('ENTRYPOINT ["entry"]', 'CMD ["redis-server"]', "WORKDIR /data", "VOLUME /data")
        self.import_debian(tag, "redis-server redis-tools", f"{entry}; mkdir -p /data", changes)


def _run(argv: list[str], timeout_s: float = 900) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {done.stdout[-1500:]}{done.stderr[-1500:]}")


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(text)
    tar.addfile(info, io.BytesIO(text.encode()))


def _as_this_host_reaches_registries(tree: Path) -> None:
    """Its certificates and apt settings; nothing of pip that names files of this host."""
    for path in ("etc/ssl/certs/ca-certificates.crt", "usr/local/share/ca-certificates"):
        source, target = Path("/", path), tree / path
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)
    for source in Path("/etc/apt/apt.conf.d").glob("*"):
        shutil.copy(source, tree / "etc/apt/apt.conf.d" / source.name)


_ACTIONS: dict[str, Callable[[DockerEngine], None]] = {
    "start": DockerEngine.start,
    "stop": DockerEngine.stop,
    "busybox": DockerEngine.import_busybox,
    "python": DockerEngine.import_python,
    "mysql": DockerEngine.import_mysql,
    "redis": DockerEngine.import_redis,
}


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[1] not in _ACTIONS:
        sys.stderr.write(f"usage: python -m omni.testing.docker_engine FOLDER {'|'.join(_ACTIONS)}\n")
        return 2
    if why := missing():
        sys.stderr.write(f"{why}\n")
        return 1
    engine = DockerEngine(Path(arguments[0]).absolute())
    _ACTIONS[arguments[1]](engine)
    sys.stdout.write(f"DOCKER_HOST={engine.url}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
