"""The keys without which a restored platform is of little use: gathered, sealed into the archive, put back.

Owns the sealing (scrypt from a passphrase, Fernet for the rest) and the rule that a key that is there already is never
overwritten. Without a passphrase no key enters an archive: a backup that lies about must not open anybody's secrets.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from omni.backup import Refused
from omni.kernel import keys, secret_files
from omni.kernel.config import Config

PART = "keys.sealed"
NAMES = ("cluster.secret", "django.key", "master.key", "admin.token", "admin.password")
SHORTEST_PASSPHRASE = 12
_PROBE = "omni backup"
_COST = 1 << 15


def gather(config: Config) -> dict[str, str]:
    """Every key that this machine has, by the name of its file; those of the configuration count as well."""
    given = {
        "cluster.secret": config.secrets.cluster.get_secret_value(),
        "django.key": config.secrets.django.get_secret_value(),
        "master.key": config.secrets.master.get_secret_value(),
    }
    found = {}
    for name in NAMES:
        text = given.get(name, "") or _file(config.state / name)
        if text:
            found[name] = text
    return found


def _file(path: Path) -> str:
    try:
        return secret_files.read(path)
    except FileNotFoundError:
        return ""


def read_passphrase(path: Path) -> str:
    """Raises Refused for a file that is missing, readable by others, or too short to protect anything."""
    try:
        text = secret_files.read(path)
    except FileNotFoundError as error:
        raise Refused(f"{path}: there is no such file; write the passphrase into it, mode 0600") from error
    except secret_files.UnsafeSecretFile as error:
        raise Refused(str(error)) from error
    if len(text) < SHORTEST_PASSPHRASE:
        raise Refused(f"{path}: a passphrase has {SHORTEST_PASSPHRASE} characters or more")
    return text


def seal(found: dict[str, str], passphrase: str) -> bytes:
    salt = secrets.token_bytes(16)
    token = _fernet(passphrase, salt, _COST).encrypt(orjson.dumps(found))
    return orjson.dumps({"kdf": "scrypt", "n": _COST, "salt": salt.hex(), "token": token.decode()})


def unseal(sealed: bytes, passphrase: str) -> dict[str, str]:
    """Raises Refused when the passphrase is not the one."""
    try:
        data = orjson.loads(sealed)
        fernet = _fernet(passphrase, bytes.fromhex(data["salt"]), min(int(data["n"]), 1 << 20))
        opened = orjson.loads(fernet.decrypt(data["token"].encode()))
    except InvalidToken as error:
        raise Refused("the passphrase does not open the keys of this archive") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{PART} is damaged: {error}") from error
    return {name: str(opened[name]) for name in NAMES if name in opened}


def together(config: Config, opened: dict[str, str]) -> dict[str, str]:
    """The keys that there will be: this machine's and those of the archive. Raises Refused when two differ."""
    here = gather(config)
    differing = sorted(name for name, text in opened.items() if here.get(name, text) != text)
    if differing:
        raise Refused(
            f"{config.state} holds another {', '.join(differing)} than the archive. Restore into an empty state "
            "directory, or move those files aside (and unset the variables that give them)"
        )
    return opened | here


def put_back(config: Config, opened: dict[str, str]) -> list[str]:
    """Write the keys of the archive that this machine lacks; their names."""
    missing = [name for name in opened if name not in gather(config)]
    for name in missing:
        secret_files.write(config.state / name, opened[name])
    return missing


def make_probe(master_keys: list[bytes]) -> str:
    """A value that only the right master key opens."""
    return MultiFernet([Fernet(key) for key in master_keys]).encrypt(_PROBE.encode()).decode()


def opens_probe(found: dict[str, str], probe: str) -> bool:
    """Whether these keys open what was sealed with the backup's."""
    master = keys.master_keys_of(found.get("master.key", ""), found.get("cluster.secret", ""))
    try:
        return MultiFernet([Fernet(key) for key in master]).decrypt(probe.encode()).decode() == _PROBE
    except InvalidToken:
        return False


def _fernet(passphrase: str, salt: bytes, cost: int) -> Fernet:
    key = Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(passphrase.encode())
    return Fernet(base64.urlsafe_b64encode(key))
