"""`python -m releases.image_job`: makes one image archive by a container engine; what to do comes on standard input.

A process of its own, so that a build that is cancelled ends with it: its connection to the engine closes, and the
engine gives up. Says what happens as JSON, one object a line: `{"log": text}`, at last `{"done": …}` or
`{"failed": …}`. Owns no build's record and no lease; knows the engine's calls.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from releases import image_archive
from releases.image_errors import Failed, failed_of

_MIB = 1024 * 1024
_CALL_S = 600.0
_LOADED = re.compile(r"^Loaded image(?: ID)?: (sha256:[0-9a-f]{64})\s*$", re.MULTILINE)  # without ID: Podman
_SHARES = 512
_TAIL = 8  # lines before the end that may say why
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # the engine paints what went to stderr


@dataclass(frozen=True, slots=True)
class Job:
    """`kind`: reference, archive or dockerfile; `source` is the reference, the archive's path or the tree's."""

    engine: str
    kind: str
    source: str
    save_to: str
    tag: str
    memory_mb: int
    disk_mb: int


def main() -> int:
    job = Job(**json.loads(sys.stdin.read()))
    from docker import APIClient
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        client = APIClient(base_url=job.engine, version="auto", timeout=_CALL_S)
        _tell(done=_done(client, job))
    except Failed as failed:
        _tell(failed={"code": failed.code, "detail": failed.detail})
    except APIError as error:
        meant = failed_of(str(error.explanation or error), job.kind)
        _tell(failed={"code": meant.code, "detail": meant.detail})
    except (DockerException, RequestException) as error:
        away = Failed("engine_unreachable", f"The container engine does not answer: {error}"[:500])
        _tell(failed={"code": away.code, "detail": away.detail})
    return 0


def _done(client: Any, job: Job) -> dict[str, Any]:
    pinned = job.source
    if job.kind == "reference":
        image, pinned, clean = _pull(client, job)
    elif job.kind == "archive":
        image, clean = _load(client, job)
    else:
        image, clean = _build(client, job)
    about = client.inspect_image(image)
    if int(about.get("Size", 0)) > job.disk_mb * _MIB:
        raise Failed("image_too_large", f"The image has {about['Size'] // _MIB} MB, more than {job.disk_mb} MB.")
    if about.get("Os") != "linux":
        raise Failed("image_not_for_linux", f"The image is for {about.get('Os')}; linux is wanted.")
    _save(client, about["Id"], Path(job.save_to))
    for name in clean:
        _remove(client, name)
    return {"image": about["Id"], "reference": pinned if job.kind == "reference" else about["Id"]}


def _pull(client: Any, job: Job) -> tuple[str, str, list[str]]:
    from docker.errors import ImageNotFound

    repository, tag = image_archive.split(job.source)
    name = f"{repository}@{tag}" if tag.startswith("sha256:") else f"{repository}:{tag}"
    known = True
    try:
        client.inspect_image(name)
    except ImageNotFound:
        known = False
    _say_all(client.pull(repository, tag=tag, stream=True, decode=True), job.kind)
    about = client.inspect_image(name)
    # Before: `docker.io/library/busybox:1` is told as `busybox@sha256:…`
    digests = [one for one in about.get("RepoDigests") or () if "@sha256:" in one]
    mine = [one for one in digests if one.split("@")[0] in (repository, repository.removeprefix("docker.io/library/"))]
    pinned = (mine or digests or [about["Id"]])[0]
    _tell(log=f"Pinned: {pinned}")
    return about["Id"], pinned, [] if known else [name]


def _load(client: Any, job: Job) -> tuple[str, list[str]]:
    nameless = Path(job.save_to).with_suffix(".nameless")
    try:
        image_archive.without_names(Path(job.source), nameless, job.disk_mb * _MIB)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise Failed("bad_image_archive", f"The upload is no image archive of one image: {error}") from error
    with nameless.open("rb") as file:
        said = [str(event.get("stream", "")) for event in _events(client.load_image(file), job.kind)]
    nameless.unlink()
    found = [image for text in said for image in _LOADED.findall(text)]
    if len(found) != 1:
        raise Failed("bad_image_archive", "The engine found no image in the upload. Make it by `docker save`.")
    return found[0], found


def _build(client: Any, job: Job) -> tuple[str, list[str]]:
    from docker.errors import ImageNotFound

    before = ""
    with contextlib.suppress(ImageNotFound):
        before = client.inspect_image(job.tag)["Id"]
    memory = job.memory_mb * _MIB
    events = client.build(
        path=job.source,
        tag=job.tag,
        rm=True,
        forcerm=True,
        decode=True,
        container_limits={"memory": memory, "memswap": memory, "cpushares": _SHARES},
    )
    _say_all(events, job.kind)
    image = str(client.inspect_image(job.tag)["Id"])
    # The newest stays, so that the next build of the app finds its layers; the one before it is nobody's any more.
    return image, [before] if before and before != image else []


def _save(client: Any, image: str, path: Path) -> None:
    with path.open("wb") as file:
        for piece in client.get_image(image):
            file.write(piece)


def _remove(client: Any, name: str) -> None:
    from docker.errors import APIError

    try:
        client.remove_image(name)
    except APIError:
        return  # something else still needs it


def _events(events: Iterable[dict[str, Any]], kind: str) -> Iterable[dict[str, Any]]:
    for event in events:
        if "error" in event:
            raise failed_of(str(event["error"]), kind)
        yield event


def _say_all(events: Iterable[dict[str, Any]], kind: str) -> None:
    """What the engine says, line by line; of a pull only each layer's end."""
    tail: list[str] = []
    for event in events:
        if "error" in event:
            raise failed_of("\n".join([*tail, str(event["error"])]), kind)
        text = str(event.get("stream") or event.get("status") or "")
        if event.get("progressDetail"):
            continue
        if "id" in event and "status" in event:
            text = f"{event['id']}: {text}"
        for line in _COLOUR.sub("", text).splitlines():
            if line.strip():
                tail = [*tail[-_TAIL:], line]
                _tell(log=line)


def _tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _exit() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _exit()
