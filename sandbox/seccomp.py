"""Which system calls a sandboxed program may not make: those that only whoever runs the host needs.

Owns the list and the filter's machine code, kept as files beside this one because bubblewrap reads it from a file
descriptor (`python -m sandbox.seccomp` writes them; a test compares). A program cannot make namespaces of its own: each
would bring it rights over a part of the kernel that it has no business with. Unlisted calls are untouched.
"""

from __future__ import annotations

import platform
import struct
from pathlib import Path

FOLDER = Path(__file__).parent / "filters"
_NEW_USER = 0x1000_0000  # the flag of clone and unshare
_EPERM, _ENOSYS = 1, 38
_X32 = 0x4000_0000
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}

# name: (x86_64, aarch64). Refused whatever the arguments.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "lookup_dcookie": (212, 18),
    "iopl": (172, None),
    "ioperm": (173, None),
}
_FLAGGED = {"unshare": (272, 97), "clone": (56, 220)}  # refused with _NEW_USER
_CLONE3 = 435  # its flags lie where a filter cannot look: callers fall back to clone

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _ERROR = 0x7FFF_0000, 0x0005_0000


def filter_file() -> str | None:
    """The filter for this machine; None when there is none."""
    path = FOLDER / f"{platform.machine()}.bpf"
    return str(path) if path.is_file() else None


def program(machine: str) -> bytes:
    """The filter as the kernel takes it. Programs of another architecture (32 bit) get no system call at all."""
    column = list(_ARCHITECTURES).index(machine)
    code = [_step(_LOAD, _ARCHITECTURE_AT), _step(_EQUAL, _ARCHITECTURES[machine], 1, 0), _error(_ENOSYS)]
    code += [_step(_LOAD, _NUMBER_AT)]
    if machine == "x86_64":
        code += [_step(_AT_LEAST, _X32, 0, 1), _error(_ENOSYS)]
    code += [_step(_EQUAL, _CLONE3, 0, 1), _error(_ENOSYS)]
    for flagged in _FLAGGED.values():
        code += [_step(_EQUAL, flagged[column], 0, 4), _step(_LOAD, _FIRST_ARGUMENT_AT),
                 _step(_ANY_BIT, _NEW_USER, 0, 1), _error(_EPERM), _step(_RETURN, _ALLOW)]  # fmt: skip
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            code += [_step(_EQUAL, number, 0, 1), _error(_EPERM)]
    return b"".join([*code, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _error(number: int) -> bytes:
    return _step(_RETURN, _ERROR | number)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for _machine in _ARCHITECTURES:
        (FOLDER / f"{_machine}.bpf").write_bytes(program(_machine))
