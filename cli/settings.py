"""Which server to speak to, and as whom.

Owns the order of the sources (environment, the user's config file, a platform started in this directory) and the
config file. A token found beside a local platform is only ever sent to this machine.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cli.errors import USAGE, CommandError

# The four members of the config.json that the project ships.
LOCAL_URLS = tuple(f"http://127.0.0.1:{port}" for port in (8000, 8001, 8002, 8003))
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """`urls` are members of one platform; the next is asked when one does not answer."""

    urls: tuple[str, ...]
    token: str
    url_source: str
    token_source: str


def config_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "omni" / "config.json"


def read() -> Settings:
    """The settings as of now."""
    stored = _stored()
    if os.environ.get("OMNI_URL"):
        urls, url_source = split_urls(os.environ["OMNI_URL"]), "OMNI_URL"
    elif stored.get("url"):
        urls, url_source = split_urls(stored["url"]), str(config_file())
    else:
        urls, url_source = LOCAL_URLS, "default"
    token, token_source = _token(urls, url_source, stored)
    return Settings(urls, token, url_source, token_source)


def _token(urls: tuple[str, ...], url_source: str, stored: dict[str, str]) -> tuple[str, str]:
    if os.environ.get("OMNI_TOKEN"):
        return os.environ["OMNI_TOKEN"].strip(), "OMNI_TOKEN"
    # The stored token belongs to the stored URL; a URL from elsewhere must not be handed it.
    if stored.get("token") and (url_source != "OMNI_URL" or split_urls(stored.get("url", "")) == urls):
        return stored["token"], str(config_file())
    if all(urlsplit(url).hostname in LOOPBACK for url in urls):
        for directory in (Path.cwd(), *Path.cwd().parents):
            file = directory / "var" / "admin.token"
            try:
                return file.read_text().strip(), str(file)
            except OSError:
                continue
    return "", "none"


def split_urls(text: str) -> tuple[str, ...]:
    """One URL or several with commas between; a bare `host:port` means http."""
    urls = [part.strip().rstrip("/") for part in text.split(",") if part.strip()]
    urls = [url if "://" in url else f"http://{url}" for url in urls]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(
                f"{url!r} is no server URL", next_step="omni login http://127.0.0.1:8000", exit_code=USAGE
            )
    return tuple(urls)


def _stored() -> dict[str, str]:
    try:
        data = json.loads(config_file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{config_file()} cannot be read: {error}", next_step="omni login", exit_code=USAGE
        ) from error
    return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}


def store(url: str, token: str) -> Path:
    """Write the config file, readable by its owner only."""
    file = config_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump({"url": url, "token": token}, out, indent=1)
    temporary.replace(file)
    return file
