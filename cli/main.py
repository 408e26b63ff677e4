"""The `omni` command line: which commands there are. `omni = cli.main:main`, also `python -m cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from cli import (
    alert_commands,
    app_commands,
    cluster_commands,
    cron_commands,
    deployment_commands,
    event_commands,
    exec_commands,
    platform_commands,
    release_commands,
    service_commands,
    task_commands,
    volume_commands,
)
from cli.session import Group, run

VERSION = "0.1.0"


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="omni")
def omni() -> None:
    """Omni Orchestrator: apps on a platform whose control plane you can kill.

    \b
    omni up DIR      upload, build, deploy, print the address
    omni status      the cluster and its nodes

    Server and token: omni login, or OMNI_URL and OMNI_TOKEN. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unhealthy.
    """


for _command in (
    release_commands.up,
    release_commands.deploy,
    release_commands.rollback,
    release_commands.builds,
    deployment_commands.deployments,
    app_commands.apps,
    app_commands.scale,
    app_commands.start,
    app_commands.stop,
    app_commands.restart,
    app_commands.ps,
    app_commands.env,
    app_commands.logs,
    app_commands.open_app,
    task_commands.run,
    exec_commands.exec_,
    task_commands.tasks,
    cron_commands.cron,
    volume_commands.volumes,
    service_commands.services,
    alert_commands.alerts,
    alert_commands.silences,
    event_commands.events,
    cluster_commands.cluster,
    platform_commands.status,
    platform_commands.doctor,
    platform_commands.login,
    platform_commands.config,
    platform_commands.completion,
):
    omni.add_command(_command)


def main(argv: Sequence[str] | None = None) -> int:
    return run(omni, argv)


if __name__ == "__main__":
    sys.exit(main())
