"""One service in the foreground, for containers: `python -m omni.launch.service worker|ingress|broker|migrate`.

Prepares the files like `plan`, then becomes the process. Whoever runs the container restarts it.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from omni.kernel import config as configuration
from omni.launch import plan
from omni.launch.spec import ProcessSpec

_NAMES = ("worker", "ingress", "broker", "migrate")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in _NAMES:
        print(f"usage: python -m omni.launch.service {'|'.join(_NAMES)}", file=sys.stderr)
        return 2
    config = configuration.load_or_exit()
    try:
        built = plan.build(config)
    except configuration.ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    processes = [
        ProcessSpec.from_json(data) for key in ("broker_process", "migrate", "services") for data in built[key]
    ]
    spec = next((process for process in processes if process.name == arguments[0]), None)
    if spec is None:
        print(f"there is no {arguments[0]} to run with this configuration", file=sys.stderr)
        return 2
    return _become(spec)


def _become(spec: ProcessSpec) -> NoReturn:
    sys.stdout.flush()
    os.chdir(spec.cwd or ".")
    os.execvpe(spec.argv[0], spec.argv, spec.environment(os.environ))  # noqa: S606 - the point of it


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
