"""A few threads for work that numpy, zlib and the like do outside Python's lock."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

One = TypeVar("One")
Made = TypeVar("Made")


def in_threads(work: Callable[[One], Made], items: Iterable[One], threads: int) -> list[Made]:
    """`[work(item) for item in items]`, at most `threads` at a time; the first error ends it.

    With one thread it runs in the caller's, so that one core is never shared by two threads.
    """
    every = list(items)
    if threads <= 1 or len(every) < 2:
        return [work(item) for item in every]
    with ThreadPoolExecutor(min(threads, len(every))) as pool:
        futures = [pool.submit(work, item) for item in every]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def chunks(length: int, count: int) -> list[range]:
    """`range(length)` in at most `count` neighbouring parts of nearly equal length, none empty."""
    count = max(1, min(count, length))
    bounds = [length * part // count for part in range(count + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds)]


def ahead(items: Iterator[One], threads: int, most: int = 4) -> Iterator[One]:
    """`items`, made in another thread while the caller works on earlier ones, at most `most` ahead; its errors come
    where the item would. With one thread: in the caller's."""
    if threads <= 1:
        yield from items
        return
    waiting: queue.Queue[tuple[One | None, BaseException | None, bool]] = queue.Queue(most)
    stopped = threading.Event()

    def make() -> None:
        try:
            for item in items:
                waiting.put((item, None, False))
                if stopped.is_set():
                    return
            waiting.put((None, None, True))
        except BaseException as error:
            waiting.put((None, error, True))

    maker = threading.Thread(target=make, name="rpn3d-ahead", daemon=True)
    maker.start()
    try:
        while True:
            item, error, last = waiting.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        while maker.is_alive():  # it may stand before a full queue
            with contextlib.suppress(queue.Empty):
                waiting.get(timeout=0.01)
        maker.join()
