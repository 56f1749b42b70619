"""Work in a few threads."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from runtime.threads import ahead, chunks, in_threads


@pytest.mark.parametrize("threads", [1, 3])
def test_results_keep_their_order(threads: int) -> None:
    assert in_threads(lambda n: n * n, range(20), threads) == [n * n for n in range(20)]


def test_one_thread_is_the_callers() -> None:
    assert in_threads(lambda _: threading.get_ident(), range(3), 1) == [threading.get_ident()] * 3


def test_the_first_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // n, [1, 0, 2], 2)


def test_chunks_by_hand() -> None:
    assert chunks(7, 3) == [range(0, 2), range(2, 4), range(4, 7)]
    assert chunks(2, 5) == [range(0, 1), range(1, 2)]


@pytest.mark.parametrize("threads", [1, 2])
def test_ahead_hands_on_items_and_errors(threads: int) -> None:
    def items() -> Iterator[int]:
        yield from range(50)
        raise ValueError("cut off")

    reader = ahead(items(), threads)
    assert [next(reader) for _ in range(50)] == list(range(50))
    with pytest.raises(ValueError, match="cut off"):
        next(reader)


def test_ahead_goes_no_further_than_allowed_and_ends_with_its_reader() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for n in itertools.count():
            made.append(n)
            yield n

    reader = ahead(items(), 2, most=3)
    assert [next(reader) for _ in range(2)] == [0, 1]
    time.sleep(0.1)
    assert len(made) <= 2 + 3 + 1
    reader.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "rpn3d-ahead"]
