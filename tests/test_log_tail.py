"""The newest lines of the log: how many are kept, and what who follows them misses."""

from __future__ import annotations

import logging

from gateway.log_tail import LogTail

INFO, WARNING = logging.INFO, logging.WARNING


def texts(tail: LogTail, **options: int) -> list[str]:
    return [one.text for one in tail.newest(100, **options)]


def test_lines_are_kept_by_level() -> None:
    tail = LogTail()
    tail.add([(INFO, "one\n"), (WARNING, "Traceback:\n  a\r\nb\n")])
    tail.add([(INFO, "two\n")])
    assert texts(tail) == ["one", "Traceback:", "  a", "b", "two"]
    assert texts(tail, level=WARNING) == ["Traceback:", "  a", "b"]
    assert [one.number for one in tail.newest(2)] == [4, 5]
    assert tail.newest(1, level=WARNING)[0].text == "b"


def test_it_is_bounded() -> None:
    tail = LogTail(most=3)
    tail.add((INFO, str(number)) for number in range(10))
    assert texts(tail) == ["7", "8", "9"]
    tail = LogTail(size=10_000)
    for number in range(50):
        tail.add([(INFO, f"{number} {'x' * 10_000}")])
    assert [text.split()[0] for text in texts(tail)] == ["48", "49"]
    assert all(len(text) == 4096 for text in texts(tail))


def test_slow_reader_is_told_how_much_it_missed() -> None:
    tail = LogTail(most=3)
    tail.add([(INFO, "a"), (WARNING, "b")])
    assert tail.after(2) == ([], 0)
    tail.add((INFO, str(number)) for number in range(5))
    lines, gone = tail.after(2)
    assert ([one.text for one in lines], gone) == (["2", "3", "4"], 2)
    assert tail.after(2, level=WARNING) == ([], 2)


def test_who_listens_is_told_until_the_end() -> None:
    tail, told = LogTail(), list[int]()
    stop = tail.listen(lambda: told.append(tail.total))
    tail.add([(INFO, "a\nb")])
    stop()
    tail.add([(INFO, "c")])
    assert told == [2]
