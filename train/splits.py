"""Which scans are trained on and which are held out, decided by patient: nobody stands on both sides.

A copy with nodules put in (`<seriesuid>+3`) belongs to the patient of its base scan, a phantom is a patient of its own.
Which series of LUNA16 are of one patient cannot be told from their names: a table can say it.
"""

import csv
import difflib
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caffe_models.atomic import replacing
from runtime.mark_files import read_series_list
from train.prepare_jobs import phantom_name
from train.prepared_files import base_of
from train.prepared_scan import DatasetError, PreparedScan

FILE_NAME = "split.csv"
HEADER = ("seriesuid", "patient", "side")
TRAINING, VALIDATION = "training", "validation"
PHANTOM = phantom_name(0).rstrip("0")


@dataclass(frozen=True)
class HoldOut:
    """What `--validation` asks for: the scans listed in `series`, or a `share` of the patients; one of the two."""

    series: tuple[str, ...] = ()
    share: float = 0.0
    source: str = ""


def parse_validation(text: str) -> HoldOut:
    """A share such as 0.1, or a CSV whose first column lists the seriesuids to hold out.

    Raises:
        DatasetError: a share that is not between 0 and 1, or no such file.
        MarksError: a file that lists no scan, or one twice.
    """
    try:
        share = float(text)
    except ValueError:
        if not Path(text).is_file():
            raise DatasetError(
                f'--validation "{text}" is neither a share such as 0.1 nor a file that lists seriesuids'
            ) from None
        return HoldOut(series=read_series_list(text), source=text)
    if not 0 < share < 1:
        raise DatasetError(f"--validation {text}: a share lies between 0 and 1, such as 0.1")
    return HoldOut(share=share)


def read_patients(path: str | Path) -> dict[str, str]:
    """Patient of each series, from a CSV with the columns `seriesuid` and `patient`.

    Raises:
        DatasetError: no such file or column, an empty cell, or a series with two patients.
    """
    found: dict[str, str] = {}
    for line, row in _rows(Path(path), ("seriesuid", "patient")):
        uid, patient = row
        if found.setdefault(uid, patient) != patient:
            raise DatasetError(f"{path}:{line}: {uid} is of patient {patient} here, of {found[uid]} above")
    return found


def patient_of(seriesuid: str, patients: Mapping[str, str]) -> str:
    """The patient of a prepared scan; a scan that the table does not name is a patient of its own."""
    base = base_of(seriesuid)
    return patients.get(seriesuid) or patients.get(base) or base


def split(
    scans: Sequence[PreparedScan], hold_out: HoldOut, patients: Mapping[str, str] | None = None, seed: int = 1
) -> tuple[list[PreparedScan], list[PreparedScan]]:
    """The scans to train on and those held out, each in the order of `scans`.

    With one scan of a patient all of them are held out, copies too. A share is drawn among real patients and phantoms
    apart, so that both are there, and among those whose nodules are all annotated: on others nobody could count what
    is false. Who is drawn depends on the seed and the names, and a patient more changes little.

    Raises:
        DatasetError: a listed scan that is not there, or a side without scans.
    """
    known = patients or {}
    by_patient: dict[str, list[PreparedScan]] = {}
    for scan in scans:
        by_patient.setdefault(patient_of(scan.seriesuid, known), []).append(scan)
    held = _listed(scans, hold_out, known) if hold_out.series else _drawn(by_patient, hold_out.share, seed)
    training = [scan for scan in scans if patient_of(scan.seriesuid, known) not in held]
    validation = [scan for scan in scans if patient_of(scan.seriesuid, known) in held]
    if not training or not validation:
        empty = TRAINING if not training else VALIDATION
        raise DatasetError(
            f"no scan is left for {empty}: {len(by_patient)} patients, {len(held)} of them held out; hold out "
            f"{'fewer' if not training else 'a larger share'}"
        )
    return training, validation


def split_for_run(
    scans: Sequence[PreparedScan],
    hold_out: HoldOut | None,
    patients: Mapping[str, str] | None,
    seed: int,
    out: str | Path,
    say: Callable[[str], None],
    *,
    keep: bool = True,
) -> tuple[list[PreparedScan], list[PreparedScan]]:
    """`split`, written into the run's folder as `split.csv` and obeyed when the run goes on.

    Scans that came since go where their patient is, new patients to training. With `keep` False nothing is written:
    who only looks at what training would get has not yet decided what it will get.

    Raises:
        DatasetError: as `split`, and what is asked for now contradicts what the run began with: its weights have seen
            the scans it was trained on.
    """
    file = Path(out) / FILE_NAME
    known = patients or {}
    if file.is_file():
        sides = _read_sides(file)
        _refuse_change(file, sides, hold_out, scans, known)
        held = {patient_of(uid, known) for uid, side in sides.items() if side == VALIDATION}
        training = [scan for scan in scans if patient_of(scan.seriesuid, known) not in held]
        validation = [scan for scan in scans if patient_of(scan.seriesuid, known) in held]
        leaked = next((s.seriesuid for s in validation if sides.get(s.seriesuid) == TRAINING), None)
        if leaked is not None:
            raise DatasetError(
                f"{file}: {leaked} was trained on, and its patient is held out by the table of patients given now; "
                f"start another run with another -o"
            )
        if held:
            say(f"{file}: {len(training)} scans to train on, {len(validation)} held out, as when the run began")
    elif hold_out is None:
        training, validation = list(scans), []
    elif any(file.parent.glob("*/log.jsonl")):
        raise DatasetError(f"{file.parent}: a run without {FILE_NAME} has trained here on every scan; give another -o")
    else:
        training, validation = split(scans, hold_out, patients, seed)
        say(f"{len(training)} scans to train on, {len(validation)} held out: {file}")
    if keep:
        _write_sides(file, training, validation, known)
    return training, validation


def _listed(scans: Sequence[PreparedScan], hold_out: HoldOut, patients: Mapping[str, str]) -> set[str]:
    there = {scan.seriesuid for scan in scans}
    for uid in hold_out.series:
        if uid not in there:
            near = difflib.get_close_matches(uid, sorted(there), n=1)
            nearest = f"; nearest: {near[0]}" if near else ""
            raise DatasetError(
                f"{hold_out.source}: {uid} is to be held out and is not among the {len(there)} prepared scans{nearest}"
            )
    return {patient_of(uid, patients) for uid in hold_out.series}


def _drawn(by_patient: Mapping[str, Sequence[PreparedScan]], share: float, seed: int) -> set[str]:
    eligible = [patient for patient, scans in by_patient.items() if any(scan.mining for scan in scans)]
    groups = (
        [patient for patient in eligible if not patient.startswith(PHANTOM)],
        [patient for patient in eligible if patient.startswith(PHANTOM)],
    )
    held: set[str] = set()
    for group in groups:
        # ranked by hash, so that a patient more moves few others
        ranked = sorted(group, key=lambda patient: hashlib.sha256(f"{seed} {patient}".encode()).digest())
        held.update(ranked[: round(share * len(group))])
    return held


def _refuse_change(
    file: Path,
    sides: Mapping[str, str],
    hold_out: HoldOut | None,
    scans: Sequence[PreparedScan],
    patients: Mapping[str, str],
) -> None:
    if hold_out is None:
        return
    if VALIDATION not in sides.values():
        raise DatasetError(
            f"{file}: this run began without --validation and has trained on every scan; start another with another -o"
        )
    if hold_out.series:
        wanted = _listed(scans, hold_out, patients)
        for uid, side in sides.items():
            if (side == VALIDATION) != (patient_of(uid, patients) in wanted):
                raise DatasetError(
                    f"{file}: {uid} is in {side}, {hold_out.source} says otherwise; a run keeps its split: leave "
                    f"--validation as it was, or start another run with another -o"
                )


def _read_sides(file: Path) -> dict[str, str]:
    sides: dict[str, str] = {}
    for line, (uid, side) in _rows(file, ("seriesuid", "side")):
        if side not in (TRAINING, VALIDATION):
            raise DatasetError(f"{file}:{line}: side is {side!r}; allowed are {TRAINING} and {VALIDATION}")
        sides[uid] = side
    return sides


def _write_sides(
    file: Path, training: Sequence[PreparedScan], validation: Sequence[PreparedScan], patients: Mapping[str, str]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for side, scans in ((TRAINING, training), (VALIDATION, validation)):
        writer.writerows((scan.seriesuid, patient_of(scan.seriesuid, patients), side) for scan in scans)
    with replacing(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """(line, cells of `columns`) of every row.

    Raises:
        DatasetError: no such file or column, or an empty cell.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV ({error})") from error
    names = rows[0][1] if rows else []
    missing = [name for name in columns if name not in names]
    if missing:
        raise DatasetError(f"{path}:1: no column {', '.join(missing)}; expected {','.join(columns)}")
    where = [names.index(name) for name in columns]
    found = []
    for line, row in rows[1:]:
        cells = [row[k] if k < len(row) else "" for k in where]
        if not all(cells):
            raise DatasetError(f"{path}:{line}: an empty cell; expected {','.join(columns)}")
        found.append((line, cells))
    return found
