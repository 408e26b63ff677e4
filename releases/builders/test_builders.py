"""Detection is explicit: which files make which kind, what is run, and what is said when nothing fits."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releases.build_errors import BuildFailed
from releases.builders import Plan, Source, detect, procfile
from releases.builders.base import HostTools

TOOLS = HostTools("/usr/bin/python3.11", "/lent/pip", "/usr/bin/node", "/usr/bin/npm")


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease is needed here: nothing is written."""


def plan_for(tree: Path, files: dict[str, str], runtime: str = "process", tools: HostTools = TOOLS) -> Plan:
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return detect(Source(tree, runtime, tools))


PROCFILE = {"Procfile": "web: ./run\nworker: ./work"}
START = '{"scripts": {"start": "node index.js"}}'


@pytest.mark.parametrize(
    ("files", "builder", "web"),
    [
        ({**PROCFILE}, "procfile", "./run"),
        ({**PROCFILE, "app.py": ""}, "procfile", "./run"),
        ({**PROCFILE, "requirements.txt": ""}, "python", "./run"),
        ({**PROCFILE, "package.json": "{}"}, "node", "./run"),
        ({**PROCFILE, "index.html": ""}, "static", "./run"),
        ({"app.py": ""}, "python", "python app.py"),
        ({"main.py": "", "server.py": ""}, "python", "python main.py"),
        ({"requirements.txt": "", "app.py": "", "package.json": START}, "python", "python app.py"),
        ({"pyproject.toml": "[project]\nname='x'", "main.py": ""}, "python", "python main.py"),
        ({"package.json": START, "index.html": ""}, "node", "node index.js"),
        ({"package.json": "{}", "server.js": ""}, "node", "node server.js"),
        ({"package.json": '{"scripts": {"start": "a", "prestart": "b"}}'}, "node", "npm start"),
        ({"index.html": ""}, "static", "exec python3 .omni/serve.py ."),
        ({"public/index.html": ""}, "static", "exec python3 .omni/serve.py public"),
        ({"index.html": "", "Dockerfile": "FROM x"}, "static", "exec python3 .omni/serve.py ."),
    ],
)
def test_which_files_make_which_kind(files: dict[str, str], builder: str, web: str, tmp_path: Path) -> None:
    plan = plan_for(tmp_path, files)
    assert (plan.builder, plan.process_types["web"]) == (builder, web)
    assert ("worker" in plan.process_types) == ("Procfile" in files)


@pytest.mark.parametrize(
    ("files", "runtime", "code", "says"),
    [
        ({}, "process", "nothing_detected", "nothing"),
        ({"notes.txt": "", "src/app.py": ""}, "process", "nothing_detected", "notes.txt, src/"),
        ({"requirements.txt": ""}, "process", "no_web_process", "requirements.txt"),
        ({"package.json": "[]"}, "process", "bad_package_json", "object"),
        ({"package.json": '{"scripts": 3}'}, "process", "bad_package_json", "scripts"),
        ({"package.json": "[" * 100_000}, "process", "bad_package_json", "JSON"),
        ({"pyproject.toml": "= broken", "app.py": ""}, "process", "bad_pyproject", "pyproject.toml"),
        ({"Procfile": ""}, "process", "bad_procfile", "web"),
        ({"Procfile": "x" * 2_000_000}, "process", "unreadable_file", "larger"),
        ({"Dockerfile": ""}, "process", "dockerfile_needs_docker", "runtime docker"),
    ],
)
def test_what_cannot_be_built_says_why(
    files: dict[str, str], runtime: str, code: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(BuildFailed) as refusal:
        plan_for(tmp_path, files, runtime)
    assert refusal.value.code == code
    assert says in refusal.value.detail


def test_a_dockerfile_comes_first_where_the_runtime_is_docker_and_a_procfile_names_its_processes(
    tmp_path: Path,
) -> None:
    plan = plan_for(tmp_path, {"Dockerfile": "FROM x", "app.py": ""}, "docker")
    assert (plan.builder, plan.process_types, plan.image) == ("dockerfile", {"web": ""}, True)
    plan = plan_for(tmp_path, {"Dockerfile": "FROM x", "Procfile": "web: serve"}, "docker")
    assert (plan.builder, plan.process_types) == ("dockerfile", {"web": "serve"})
    assert plan_for(tmp_path, {"Dockerfile": "", "app.py": "", "Procfile": "web: x"}).image is False


def test_a_failed_detection_names_everything_that_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as refusal:
        plan_for(tmp_path, {"x": ""})
    for name in (
        "Procfile",
        "requirements.txt",
        "pyproject.toml",
        "app.py",
        "package.json",
        "index.html",
        "Dockerfile",
    ):
        assert name in refusal.value.detail


def test_a_binary_file_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BuildFailed, match="unreadable_file"):
        detect(Source(tmp_path, "process", TOOLS))


def installs(plan: Plan) -> list[str]:
    return [" ".join(command.argv) for command in plan.commands]


def test_pyproject_is_installed_only_when_it_is_a_package(tmp_path: Path) -> None:
    settings_only = plan_for(tmp_path, {"pyproject.toml": "[tool.ruff]\nline-length = 100", "app.py": ""})
    assert not any("install" in line for line in installs(settings_only))
    package = plan_for(tmp_path, {"pyproject.toml": "[build-system]\nrequires = []", "app.py": ""})
    assert installs(package)[-1].endswith(
        "install --no-input --disable-pip-version-check --no-color --progress-bar off ."
    )
    listed = plan_for(tmp_path, {"requirements.txt": "flask"})
    assert installs(listed)[-1].endswith("-r requirements.txt")
    assert listed.notes


def test_npm_follows_the_lock_and_builds_with_development_dependencies(tmp_path: Path) -> None:
    assert installs(plan_for(tmp_path, {"package.json": START}))[0].startswith("npm install")
    assert installs(plan_for(tmp_path, {"package-lock.json": "{}"}))[0].startswith("npm ci")
    with_build = '{"scripts": {"start": "x", "build": "vite build"}}'
    lines = installs(plan_for(tmp_path, {"package.json": with_build}))
    assert "--include=dev" in lines[0]
    assert lines[1] == "npm run build"
    assert lines[2].startswith("npm prune --omit=dev")


@pytest.mark.parametrize("missing", ["node", "npm"])
def test_a_host_without_node_says_so(missing: str, tmp_path: Path) -> None:
    tools = HostTools("/p", None, None if missing == "node" else "/n", None if missing == "npm" else "/m")
    with pytest.raises(BuildFailed, match=f"node_not_available.*`{missing}`"):
        plan_for(tmp_path, {"package.json": START}, tools=tools)


def test_without_pip_to_lend_the_environment_gets_its_own(tmp_path: Path) -> None:
    tools = HostTools("/usr/bin/python3", None, None, None)
    lines = installs(plan_for(tmp_path, {"requirements.txt": "", "app.py": ""}, tools=tools))
    assert "--without-pip" not in lines[0]
    assert "-mpip install" in lines[-1]


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)
COMMANDS = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=50)


@given(types=st.dictionaries(NAMES, COMMANDS, max_size=10), web=COMMANDS)
def test_a_procfile_is_read_back_as_written(types: dict[str, str], web: str) -> None:
    wanted = {**types, "web": web}
    text = "# a comment\r\n\n" + "\n".join(f"{name}:  {command} " for name, command in wanted.items())
    assert procfile.parse(text) == wanted


@given(text=st.text(max_size=300))
def test_no_procfile_crashes_the_reader(text: str) -> None:
    with contextlib.suppress(BuildFailed):
        assert procfile.parse(text).keys() - {"release"}
