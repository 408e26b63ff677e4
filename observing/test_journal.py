"""The log of our own processes: one JSON object a line, with the request behind it; a message cannot forge a line."""

from __future__ import annotations

import json
import logging

from observing import journal


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("agent.instance", logging.INFO, "x.py", 1, text, (), None)


def test_a_line_is_json_and_names_the_request_and_the_process() -> None:
    with journal.on_behalf_of("req_1"):
        shown = journal.JsonLines("agent").format(record('start\n{"level": "forged"}'))
    assert "\n" not in shown
    line = json.loads(shown)
    assert list(line) == ["at", "level", "logger", "process", "request_id", "message"]
    assert (line["process"], line["request_id"], line["level"]) == ("agent", "req_1", "INFO")
    assert line["at"].endswith("Z")


def test_text_names_the_request_only_where_there_is_one() -> None:
    text = journal.TextLines("agent")
    assert text.format(record("leaving")).endswith("agent INFO agent.instance: leaving")
    with journal.on_behalf_of("req_2"):
        assert text.format(record("start")).endswith("start [req_2]")


def test_what_follows_from_no_request_keeps_the_one_before() -> None:
    with journal.on_behalf_of("req_3"), journal.on_behalf_of(""):
        assert journal.current() == "req_3"
    assert journal.current() == ""


def test_an_exception_stays_in_its_line() -> None:
    try:
        raise ValueError("no\nno")
    except ValueError as error:
        failed = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), (ValueError, error, None))
    shown = journal.JsonLines("web").format(failed)
    assert "\n" not in shown
    assert "ValueError" in json.loads(shown)["exception"]
