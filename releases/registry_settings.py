"""How this host reaches package registries, for the inside of a build: read, cleaned, and bound read-only.

Owns which settings of pip, npm, proxies and certificates a build may know. By allow-list, and without credentials:
a build runs other people's code, which could send them anywhere. Files and directories that the settings name are
bound at their own paths. Writes two small files; the host's own configuration files are never shown.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from sandbox.bubblewrap import Bind

INSIDE = "/etc/omni"
_PIP_KEYS = frozenset(
    [
        "index-url",
        "extra-index-url",
        "find-links",
        "no-index",
        "trusted-host",
        "cert",
        "proxy",
        "timeout",
        "default-timeout",
        "retries",
        "resume-retries",
        "only-binary",
        "no-binary",
        "prefer-binary",
        "pre",
        "constraint",
        "build-constraint",
    ]
)
_PIP_SECTIONS = ("global", "install", "download", "wheel")
_NPM_KEYS = frozenset(
    [
        "registry",
        "replace-registry-host",
        "omit-lockfile-registry-resolved",
        "strict-ssl",
        "cafile",
        "ca",
        "proxy",
        "https-proxy",
        "noproxy",
        "fetch-retries",
        "fetch-retry-factor",
        "fetch-retry-mintimeout",
        "fetch-retry-maxtimeout",
        "fetch-timeout",
        "maxsockets",
        "nodedir",
        "prefer-offline",
        "offline",
    ]
)
_NPM_SCOPE = re.compile(r"@[a-z0-9][a-z0-9._-]*:registry\Z")
_CA_FILES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
_SHOWN_ANYWAY = ("/usr", "/etc/ssl", "/etc/pki", "/etc/ca-certificates")  # by bubblewrap.runtime_binds
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|::1)\Z")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`files`: what to write for `binds` of INSIDE; `loopback_ports`: registries and proxies on this very host."""

    env: dict[str, str] = field(default_factory=dict)
    pip_conf: str = ""
    npmrc: str = ""
    paths: tuple[str, ...] = ()
    loopback_ports: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def write(self, directory: Path) -> list[Bind]:
        """Put the files into `directory` (of one build) and answer the binds that show everything inside."""
        directory.mkdir(mode=0o755, exist_ok=True)
        (directory / "pip.conf").write_text(self.pip_conf, encoding="utf-8")
        (directory / "npmrc").write_text(self.npmrc, encoding="utf-8")
        (directory / "npmrc-global").write_text("", encoding="utf-8")
        binds = [Bind(path, path) for path in self.paths]
        # A configuration file in a bound system directory is covered, for it may hold a token.
        binds += [Bind(str(directory / "npmrc-global"), str(path)) for path in _npm_global_files() if path.is_file()]
        return [*binds, Bind(str(directory), INSIDE)]


class _Reader:
    """Collects values, the paths they name and what was left out of them."""

    def __init__(self) -> None:
        self.paths: dict[str, None] = {}
        self.ports: set[int] = set()
        self.notes: dict[str, None] = {}

    def value(self, text: str, what: str) -> str:
        """A value (perhaps several URLs or paths) without credentials."""
        return " ".join(self._one(word, what) for word in text.split())

    def path(self, text: str) -> None:
        """Show `text` inside, when it is there and not so much of the host that showing it would be a leak."""
        path = os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 (links stay as they are named)
        if not os.path.exists(path):  # noqa: PTH110
            return
        if any(path == known or path.startswith(known + "/") for known in _SHOWN_ANYWAY):
            return
        if path.count("/") < 2 or _home().is_relative_to(path):
            self.notes[f"{path} is not shown to builds: too much lies below it"] = None
            return
        self.paths[path] = None

    def _one(self, word: str, what: str) -> str:
        if word.startswith("/"):
            self.path(word)
            return word
        if "://" not in word:
            return word
        parts = urlsplit(word)
        if parts.scheme == "file":
            self._file_url(unquote(parts.path))
            return word
        if parts.hostname and _LOOPBACK.match(parts.hostname):
            self.ports.add(parts.port or (443 if parts.scheme == "https" else 80))
        if parts.username is None and parts.password is None:
            return word
        self.notes[f"the credentials of {what} are not shown to builds"] = None
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def _file_url(self, path: str) -> None:
        # An index directory `<root>/simple` links to files beside it.
        plain = path.rstrip("/") or "/"
        self.path(os.path.dirname(plain) if plain.endswith("/simple") else plain)  # noqa: PTH120


def read(environ: Mapping[str, str] | None = None, pip_files: list[Path] | None = None,
         npm_files: list[Path] | None = None) -> RegistrySettings:  # fmt: skip
    """The settings of this host: files first, the environment over them, as pip and npm themselves do it."""
    environ = os.environ if environ is None else environ
    reader = _Reader()
    pip_conf = _pip(environ, _pip_files(environ) if pip_files is None else pip_files, reader)
    npmrc = _npm(environ, _npm_files(environ) if npm_files is None else npm_files, reader)
    env = {
        "PIP_CONFIG_FILE": f"{INSIDE}/pip.conf",
        "NPM_CONFIG_USERCONFIG": f"{INSIDE}/npmrc",
        "NPM_CONFIG_GLOBALCONFIG": f"{INSIDE}/npmrc-global",
    }
    for name in _CA_FILES:
        if environ.get(name):
            env[name] = environ[name]
            reader.path(environ[name])
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
        if environ.get(name):
            env[name] = reader.value(environ[name], name)
    for name in ("no_proxy", "NO_PROXY"):
        if environ.get(name):
            env[name] = environ[name]
    return RegistrySettings(env, pip_conf, npmrc, tuple(reader.paths), tuple(sorted(reader.ports)), tuple(reader.notes))


def _pip(environ: Mapping[str, str], files: list[Path], reader: _Reader) -> str:
    found: dict[str, dict[str, str]] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue  # pip itself would refuse it, and say so where it can be seen
        for section in _PIP_SECTIONS:
            if parser.has_section(section):
                found.setdefault(section, {}).update(parser.items(section))
    for name, value in environ.items():
        if name.startswith("PIP_"):
            found.setdefault("global", {})[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    lines = []
    for section in _PIP_SECTIONS:
        kept = {key: value for key, value in found.get(section, {}).items() if key in _PIP_KEYS and value.strip()}
        if kept:
            lines += [f"[{section}]", *(f"{key} = {reader.value(value, key)}" for key, value in sorted(kept.items()))]
    return "".join(f"{line}\n" for line in lines)


def _npm(environ: Mapping[str, str], files: list[Path], reader: _Reader) -> str:
    found: dict[str, str] = {}
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for line in text.splitlines():
            key, equals, value = line.partition("=")
            if equals and not key.lstrip().startswith(("#", ";")):
                found[key.strip()] = value.strip().strip("\"'")
    for name, value in environ.items():
        if name.lower().startswith("npm_config_"):
            found[name[len("npm_config_") :].lower().replace("_", "-")] = value
    kept = {
        key: reader.value(value, key)
        for key, value in found.items()
        if (key in _NPM_KEYS or _NPM_SCOPE.match(key)) and value and "${" not in value
    }
    return "".join(f"{key}={value}\n" for key, value in sorted(kept.items()))


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    """pip's own places, the weakest first."""
    given = environ.get("PIP_CONFIG_FILE")
    if given == os.devnull:
        return []
    system = [Path(base) / "pip" / "pip.conf" for base in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if base]
    user = Path(environ.get("XDG_CONFIG_HOME") or _home() / ".config")
    files = [*system, Path("/etc/pip.conf"), _home() / ".pip" / "pip.conf", user / "pip" / "pip.conf"]
    files += [Path(sys.base_prefix) / "pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*files, Path(given)] if given else files


def _npm_files(environ: Mapping[str, str]) -> list[Path]:
    lowered = {name.lower(): value for name, value in environ.items()}
    user = lowered.get("npm_config_userconfig") or str(_home() / ".npmrc")
    given = lowered.get("npm_config_globalconfig")
    return [*([Path(given)] if given else _npm_global_files()), Path(user)]


def _npm_global_files() -> list[Path]:
    return [Path("/usr/etc/npmrc"), Path("/usr/local/etc/npmrc")]


def _home() -> Path:
    """The home directory; / for a user that has none, as in containers."""
    found = os.path.expanduser("~")  # noqa: PTH111 (Path.home() raises there)
    return Path(found if found.startswith("/") else "/")
