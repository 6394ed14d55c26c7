"""`contender parked` shows what anyone may have sent, as text."""

import io
import subprocess
import sys
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from rich.console import Console

from embedded.parked import ParkedRecord, parked_record, table_of
from embedded.ports import free_ports


def record(value: bytes | None, headers: list[tuple[str, Any]]) -> "ConsumerRecord[Any, Any]":
    return ConsumerRecord("parked", 0, 0, 0, 0, None, value, None, -1, -1, headers)


def shown(parked: ParkedRecord) -> str:
    console = Console(width=200, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(table_of([parked]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("text", ["[/red] [bold]x[/foo]", "[link=http://x]y[/link]", ":pile_of_poo:", "日本 é"])
def test_what_looks_like_markup_is_shown_as_it_is(text):
    assert shown(ParkedRecord(text, 0, 0, text, text)).count(text) == 3


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\x9b2Jb", "a\x1b]0;title\x07b", "a\nb", "a\rb", "a\u202eb", "a\x00b"])
def test_control_characters_are_replaced(text):
    lines = shown(ParkedRecord(text, 0, 0, text, text))
    assert lines.count("a\N{REPLACEMENT CHARACTER}") == 3
    assert not {*"\x1b\x9b\x07\r\u202e\x00"} & {*lines}


@pytest.mark.parametrize("number", [None, b"", b"one", b"1.5", b"\xff", b"9" * 5000])
def test_an_invalid_number_does_not_hide_the_record(number):
    parked = parked_record(
        record(None, [("partition", number), ("offset", b"7"), ("reason", None), ("topic", b"\xff")])
    )
    assert parked == ParkedRecord("\N{REPLACEMENT CHARACTER}", -1, 7, "", "")


def test_the_beginning_of_the_bytes_is_shown():
    headers = [("topic", b"feedback"), ("partition", b"3"), ("offset", b"12"), ("reason", b"no frame")]
    assert parked_record(record(b"\xff" + b"x" * 100, headers)).begins == "\N{REPLACEMENT CHARACTER}" + "x" * 59


def test_of_long_headers_the_beginning_is_shown():
    parked = parked_record(record(b"x", [("topic", b"t" * 8_000_000), ("reason", b"r" * 8_000_000)]))
    assert (parked.topic, parked.reason) == ("t" * 2_000, "r" * 2_000)


def test_without_kafka_there_is_one_sentence(tmp_path):
    [port] = free_ports(1)
    environment = {"CONTENDER_HOME": str(tmp_path), "CONTENDER_KAFKA_PORT": str(port)}
    command = [sys.executable, "-m", "contender.cli", "parked"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    message = f"Kafka on 127.0.0.1:{port} does not answer (KafkaConnectionError): is `contender up` running?\n"
    assert ended.stderr == message
