"""Reading what an evaluation needs: submissions, annotations, and the list of scans, as LUNA16 writes them."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import Rpn3dError

COORDINATES = ("coordX", "coordY", "coordZ")
TYPE = "type"


class MarksError(Rpn3dError):
    """A submission, an annotation file or a list of scans that cannot be read."""


@dataclass(frozen=True, eq=False)
class Marks:
    """Rows of one CSV, in the order of the file.

    Attributes:
        seriesuid: of each row.
        xyz_mm: (n, 3) world position, float64.
        value: (n,) the last column: `probability` of a submission, `diameter_mm` of annotations.
        source: the file's name.
        types: of each row what the optional column `type` of annotations says, "" if nothing; () without that column.
        lines: of each row, its line in the file; empty if the marks come from no file.
    """

    seriesuid: tuple[str, ...]
    xyz_mm: NDArray[np.float64]
    value: NDArray[np.float64]
    source: str
    types: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()

    def type_of(self, row: int) -> str:
        """What the column `type` says of a row, "" if nothing."""
        return self.types[row] if self.types else ""

    def rows_of(self) -> dict[str, NDArray[np.intp]]:
        """Row numbers of each series, ascending."""
        found: dict[str, list[int]] = {}
        for row, uid in enumerate(self.seriesuid):
            found.setdefault(uid, []).append(row)
        return {uid: np.asarray(rows, dtype=np.intp) for uid, rows in found.items()}

    def repeated(self) -> int:
        """Rows that equal an earlier one in all five columns."""
        seen = set(zip(self.seriesuid, map(tuple, self.xyz_mm.tolist()), self.value.tolist(), strict=True))
        return len(self.seriesuid) - len(seen)


def joined(parts: Sequence[Marks], source: str) -> Marks:
    """The rows of several, one after the other, without their types and lines."""
    return Marks(
        tuple(uid for one in parts for uid in one.seriesuid),
        np.concatenate([one.xyz_mm for one in parts]),
        np.concatenate([one.value for one in parts]),
        source,
    )


def read_submission(path: str | Path) -> Marks:
    """Read a submission: columns seriesuid, coordX, coordY, coordZ, probability, in any order, others ignored.

    Raises:
        MarksError: not there, no CSV with these columns, or a row without finite numbers (named by its line).
    """
    return _read(Path(path), "probability")


def read_annotations(path: str | Path) -> Marks:
    """Read annotations: columns seriesuid, coordX, coordY, coordZ, diameter_mm, in any order, others ignored.

    A further column `type` may say what each finding is, such as "solid;juxtapleural"; LUNA16's own files have none.

    Raises:
        MarksError: as `read_submission`.
    """
    return _read(Path(path), "diameter_mm")


def read_series_list(path: str | Path) -> tuple[str, ...]:
    """Read the scans that are evaluated: one seriesuid a line, in the first column; a header `seriesuid` is allowed.

    Raises:
        MarksError: not there, empty, or a scan listed twice (it would count twice in every rate).
    """
    first_line: dict[str, int] = {}
    for line, row in _rows(Path(path)):
        uid = row[0].strip()
        if not uid or (not first_line and uid == "seriesuid"):
            continue
        if uid in first_line:
            raise MarksError(f"{path}:{line}: {uid} is listed on line {first_line[uid]} already; list every scan once")
        first_line[uid] = line
    if not first_line:
        raise MarksError(f"{path}: lists no scan; expected one seriesuid a line")
    return tuple(first_line)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except OSError as error:
        raise MarksError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise MarksError(f"{path}: not a CSV text in UTF-8 ({error})") from error


def _read(path: Path, value_name: str) -> Marks:
    wanted = ("seriesuid", *COORDINATES, value_name)
    rows = _rows(path)
    line, header = next(rows, (1, []))
    names = [name.strip() for name in header]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise MarksError(
            f"{path}:{line}: no column {', '.join(missing)} in the header {','.join(names)[:120] or '(empty file)'}; "
            f"expected {','.join(wanted)}"
        )
    where = [names.index(name) for name in wanted]
    type_column = names.index(TYPE) if TYPE in names else None
    uids: list[str] = []
    types: list[str] = []
    numbers: list[tuple[float, ...]] = []
    lines: list[int] = []
    for line, row in rows:
        if len(row) <= max(where):
            raise MarksError(f"{path}:{line}: {len(row)} fields, the header has {len(names)}; is the row cut off?")
        uids.append(row[where[0]].strip())
        try:
            values = tuple(float(row[i]) for i in where[1:])
        except ValueError:
            values = (math.nan,)
        if not all(map(math.isfinite, values)):
            raise MarksError(f"{path}:{line}: {_first_bad(row, names, where[1:])}")
        numbers.append(values)
        lines.append(line)
        if type_column is not None:
            types.append(row[type_column].strip() if type_column < len(row) else "")
    table = np.asarray(numbers, dtype=np.float64).reshape(-1, 4)
    xyz_mm, value = np.ascontiguousarray(table[:, :3]), np.ascontiguousarray(table[:, 3])
    return Marks(tuple(uids), xyz_mm, value, str(path), tuple(types), tuple(lines))


def _first_bad(row: list[str], names: list[str], where: list[int]) -> str:
    for i in where:
        try:
            if math.isfinite(float(row[i])):
                continue
        except ValueError:
            pass
        return f"{names[i]} is {row[i]!r}, expected a finite number"
    raise AssertionError("called for a row without fault")
