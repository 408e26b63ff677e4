"""One vantage point: what each kind of check says of real servers, streaks, history, pace."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks import asking, streaks
from agent.checks.asking import Answer, Asker
from agent.checks.engine import Engine
from agent.checks.history import KEPT_MOST, LENGTH_US, History
from agent.checks.messages import Check
from agent.checks.streaks import Streak
from sandbox.addresses import AddressPolicy

HERE = AddressPolicy.of(allow=["127.0.0.0/8"])
outcomes = st.sampled_from(["passing", "warning", "failing"])


def check(kind: str, **fields) -> Check:
    return Check(id=fields.pop("id", 1), definition=1, type=kind, interval_s=fields.pop("interval_s", 0.05),
                 timeout_s=fields.pop("timeout_s", 2.0), **fields)  # fmt: skip


def ask(one: Check, policy: AddressPolicy = HERE) -> tuple[str, str]:
    async def run() -> asking.Answer:
        asker = Asker(policy)
        try:
            return await asker.ask(one)
        finally:
            asker.close()

    answer = asyncio.run(run())
    return answer.outcome, answer.detail


@contextlib.asynccontextmanager
async def serving(talk, **more) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, **more)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(text: bytes):
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return talk


def ask_a_server(talk, make, policy: AddressPolicy = HERE, **more) -> tuple[str, str]:
    async def run() -> asking.Answer:
        asker = Asker(policy)
        async with serving(talk, **more) as port:
            try:
                return await asker.ask(make(port))
            finally:
                asker.close()

    answer = asyncio.run(run())
    return answer.outcome, answer.detail


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well"


@pytest.mark.parametrize(
    ("answer", "fields", "expected"),
    [
        (PAGE, {}, ("passing", "answered 200")),
        (PAGE, {"contains": "well"}, ("passing", "answered 200")),
        (PAGE, {"contains": "ill"}, ("failing", "answered 200 without the wanted text")),
        (PAGE, {"status_min": 204, "status_max": 204}, ("failing", "answered 200, not 204-204")),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", {"status_max": 299},
         ("failing", "answered 302, not 200-299")),
        (b"HTTP/1.1 503 No\r\n\r\n", {}, ("failing", "answered 503, not 200-399")),
    ],
)  # fmt: skip
def test_http_is_judged_by_status_and_text(answer, fields, expected):
    made = ask_a_server(answering(answer), lambda port: check("http", url=f"http://127.0.0.1:{port}/x?y", **fields))
    assert made == expected


def test_an_answer_without_end_is_cut_off_by_size_and_time():
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(64):
            writer.write(b"x" * 65536)
            await writer.drain()

    made = ask_a_server(pour, lambda port: check("http", url=f"http://127.0.0.1:{port}/", contains="y"))
    assert made == ("failing", f"an answer of more than {asking.BODY_LIMIT} bytes")


def test_a_server_that_says_nothing_is_failing_within_the_time_out():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    made = ask_a_server(silent, lambda port: check("http", url=f"http://127.0.0.1:{port}/", timeout_s=0.2))
    assert made == ("failing", "no answer within 0.2 s")


def test_tcp_says_why_a_connection_was_refused():
    assert ask_a_server(answering(b""), lambda port: check("tcp", host="127.0.0.1", port=port))[0] == "passing"
    assert ask(check("tcp", host="127.0.0.1", port=1)) == ("failing", "connection refused")


@pytest.mark.parametrize("kind", ["tcp", "http", "tls"])
def test_the_policy_is_asked_before_any_connection(kind):
    one = check(kind, host="127.0.0.1", port=9, url="http://127.0.0.1:9/")
    outcome, detail = ask(one, AddressPolicy())
    assert outcome == "failing"
    assert "this host itself" in detail
    outcome, detail = ask(check(kind, host="169.254.169.254", port=80, url="http://169.254.169.254/"), HERE)
    assert "metadata" in detail


def test_a_name_is_resolved_once_and_connected_to_as_resolved(monkeypatch):
    """DNS rebinding: the second answer of the resolver is never asked for."""
    asked = []

    def resolver(host, port, **_more):
        asked.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(asked) == 1 else "169.254.169.254", port))]

    monkeypatch.setattr(asking.socket, "getaddrinfo", resolver)
    made = ask_a_server(answering(PAGE), lambda port: check("http", url=f"http://rebound.example:{port}/"))
    assert made == ("passing", "answered 200")
    assert asked == ["rebound.example"]


def test_a_name_that_does_not_exist_is_failing_and_says_so():
    outcome, detail = ask(check("tcp", host="nowhere.invalid", port=1, timeout_s=5.0))
    assert outcome == "failing"
    assert "address" in detail or "no answer" in detail


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Good for ten more days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=10))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(encoding)
    )
    return file


@pytest.mark.parametrize(
    ("warn", "fail", "outcome"), [(5.0, 1.0, "passing"), (30.0, 7.0, "warning"), (30.0, 20.0, "failing")]
)
def test_a_certificate_is_judged_by_the_days_it_has_left(certificate, warn, fail, outcome):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    def make(port: int, verify: bool = False) -> Check:
        return check("tls", host="127.0.0.1", port=port, verify=verify, warn_days=warn, fail_days=fail)

    told = ask_a_server(shake_hands, make, ssl=context)
    assert told == (outcome, "the certificate is valid for 10 more days")
    outcome, detail = ask_a_server(shake_hands, lambda port: make(port, True), ssl=context)
    assert outcome == "failing"
    assert "the certificate is not valid" in detail


def test_exec_is_judged_by_its_exit_code_and_says_its_last_words():
    assert ask(check("exec", command=("/bin/sh", "-c", "echo fine"))) == ("passing", "exited with code 0: fine")
    assert ask(check("exec", command=("/bin/sh", "-c", "echo a; echo b; exit 3"))) == (
        "failing",
        "exited with code 3: b",
    )
    assert ask(check("exec", command=("/no/such/program",)))[0] == "failing"


def test_exec_runs_as_nobody_without_our_environment(monkeypatch):
    monkeypatch.setenv("OMNI_CLUSTER_SECRET", "hush")
    _, detail = ask(check("exec", command=("/bin/sh", "-c", "echo uid $(id -u) ${OMNI_CLUSTER_SECRET-none}")))
    import os

    assert detail.endswith("none")
    assert f"uid {65534 if os.geteuid() == 0 else os.geteuid()} " in detail


def test_exec_leaves_nothing_behind_at_its_time_out(tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder != Path("/tmp"):
            with contextlib.suppress(OSError):
                folder.chmod(folder.stat().st_mode | 0o005)
        else:
            break
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    assert ask(check("exec", command=("/bin/sh", "-c", script), timeout_s=0.5))[0] == "failing"
    pid = (tmp_path / "pid").read_text().strip()
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_disk_space_is_judged_by_what_is_free():
    assert ask(check("disk", path="/", warn_percent=0, fail_percent=-1))[0] in ("passing", "warning")
    assert ask(check("disk", path="/", warn_percent=100, fail_percent=-1))[0] == "warning"
    assert ask(check("disk", path="/", warn_percent=100, fail_percent=100))[0] == "failing"


# -- streaks


@given(st.lists(outcomes, max_size=40), st.integers(1, 4), st.integers(1, 4))
def test_a_verdict_turns_only_after_so_many_in_a_row(sequence, healthy, unhealthy):
    streak = Streak()
    for number, outcome in enumerate(sequence):
        before = streak
        streak = streaks.after(streak, outcome, healthy, unhealthy)
        if streak.verdict == "failing" and before.verdict != "failing":
            assert all(one == "failing" for one in sequence[number + 1 - unhealthy : number + 1])
            assert number + 1 >= unhealthy
        if streak.verdict in ("passing", "warning") and before.verdict in ("failing", "unknown"):
            assert all(one != "failing" for one in sequence[number + 1 - healthy : number + 1])
            assert number + 1 >= healthy


@given(st.lists(outcomes, min_size=8, max_size=20), st.integers(1, 4), st.integers(1, 4))
def test_enough_in_a_row_decide_whatever_was_before(sequence, healthy, unhealthy):
    streak = Streak()
    for outcome in sequence + ["failing"] * unhealthy:
        streak = streaks.after(streak, outcome, healthy, unhealthy)
    assert streak.verdict == "failing"
    for _ in range(healthy):
        streak = streaks.after(streak, "warning", healthy, unhealthy)
    assert streak.verdict == "warning"


# -- history


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(1, 20_000_000), outcomes), max_size=60))
def test_the_spans_hold_every_check_once_and_none_is_long(sequence):
    history, now, kept = History(), 0, {}
    for pause, outcome in sequence:
        now += pause
        history.add(1, now, outcome, 1.0, "")
    history.forget(1)
    for span in history.due(10_000):
        kept[span.from_us] = span
    assert sum(span.checks for span in kept.values()) == len(sequence)
    assert all(span.at_us - span.from_us < LENGTH_US for span in kept.values())


def test_a_change_is_shipped_at_once_and_its_row_again_when_it_has_grown():
    history = History()
    history.add(1, 10, "passing", 2.0, "")
    (first,) = history.due(10)
    history.add(1, 20, "passing", 4.0, "")
    history.shipped([first])
    assert history.due(10) == []
    history.add(1, 30, "failing", None, "refused")
    passing, failing = history.due(10)
    assert (passing.from_us, passing.checks, passing.latency_ms, passing.latency_ms_max) == (10, 2, 3.0, 4.0)
    assert (failing.outcome, failing.latency_ms, failing.detail) == ("failing", None, "refused")


def test_what_cannot_be_shipped_is_kept_up_to_a_bound():
    history = History()
    for number in range(KEPT_MOST + 10):
        history.add(number, number, "passing", None, "")
    assert len(history.due(KEPT_MOST * 2)) == KEPT_MOST
    assert history.dropped == 10


# -- the engine


async def until(condition, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_the_engine_tells_a_change_once_and_forgets_what_is_no_longer_wanted():
    async def run() -> None:
        engine = Engine("n")
        running = asyncio.create_task(engine.run())
        async with serving(answering(PAGE)) as port:
            good = check("tcp", host="127.0.0.1", port=port, id=1)
            bad = check("tcp", host="127.0.0.1", port=1, id=2, unhealthy_threshold=2)
            engine.apply([good, bad], HERE)
            await until(lambda: len(engine.changes(10)) == 2, 15)
            told = engine.changes(10)
            assert {(one.id, one.verdict) for one in told} == {(1, "passing"), (2, "failing")}
            engine.told(told)
            assert engine.changes(10) == []
            engine.apply([bad], HERE)
            assert [(one.id, one.verdict) for one in engine.changes(10)] == [(1, "unknown")]
            assert [one.id for one in engine.everything()] == [2]
        running.cancel()

    asyncio.run(run())


def test_the_words_are_those_of_the_verdict_not_of_a_check_that_has_not_turned_it():
    engine = Engine("n")
    engine.apply([check("tcp", host="10.0.0.1", port=1, id=1, healthy_threshold=2, unhealthy_threshold=2)], HERE)
    (one,) = engine._watched.values()
    said = []
    for outcome in ("passing", "passing", "failing", "failing", "passing", "passing"):
        engine._take(one, Answer(outcome, outcome), 1.0)
        said += [(seen.verdict, seen.detail) for seen in engine.everything()]
    assert said == [("passing", "passing")] * 2 + [("failing", "failing")] * 2 + [("passing", "passing")]


@pytest.mark.slow
def test_a_check_that_hangs_holds_up_no_other():
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def run() -> None:
        engine = Engine("n")
        running = asyncio.create_task(engine.run())
        async with serving(silent) as port:
            hanging = [check("http", url=f"http://127.0.0.1:{port}/", id=n, timeout_s=30.0) for n in range(2, 30)]
            engine.apply([check("tcp", host="127.0.0.1", port=port, id=1), *hanging], HERE)
            await until(lambda: engine.done >= 20)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(run())
