"""`docs/layers.md`: which layer types there are, in which Caffe, which engine and how many dimensions, and how proven.

Made from the registry (`caffe_models.layer`) alone, so that it cannot say what the code does not do; the numbers of
reference cases come from `docs/golden_cases.csv`, which `--data FOLDER` counts anew. `make docs` runs it.
"""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from caffe_models.atomic import replacing
from caffe_models.layer import FOREIGN_TYPES, Layer, layer_types
from caffe_models.layer_specs import NetState, read_layer_specs
from caffe_models.schema import DIALECTS
from caffe_models.text_format import read_text

DOCS = Path(__file__).resolve().parent.parent / "docs"

Counts = Mapping[str, tuple[int, ...]]
"""Layer type -> number of reference cases that contain it, in the order of DIALECTS."""

_HEAD = """# Layer types

Written by `make docs` from the registry (`caffe_models/layer.py`, one file a type in `caffe_models/layers/`); a test
holds this page against the code. To add a type, see CONTRIBUTING.md.

- **bvlc, intel, extended**: whether that Caffe has the type; *2-D*: it has, but stops at bottoms of 5 axes; we run
  these too, with a warning. A file of one dialect may use a type of another, as forks did, if it can be read.
- **PyTorch, ONNX Runtime, OpenVINO**: the engines. Exported nets keep free spatial sizes.
- **axes**: spatial axes of the first bottom; 2 is N, C, H, W and 3 is N, C, D, H, W.
- **cases**: operator cases computed by that Caffe which contain the type (bvlc / intel / extended) and are compared in
  every engine that has it, to 1e-5 of the largest value; types without any are held against figures worked out by hand.

| type | bvlc | intel | extended | PyTorch | ONNX Runtime | OpenVINO | axes | cases | remarks |
|---|---|---|---|---|---|---|---|---|---|
"""

_FOREIGN = """
## Types of other forks

They are not read, since their parameters differ from fork to fork; the error says what to write instead.

| type | what to do |
|---|---|
"""


def table(counts: Counts) -> str:
    """The text of `docs/layers.md`."""
    rows = [_row(name, cls, counts.get(name, (0,) * len(DIALECTS))) for name, cls in layer_types().items()]
    foreign = [f"| {name} | {advice} |\n" for name, advice in sorted(FOREIGN_TYPES.items())]
    return _HEAD + "".join(rows) + _FOREIGN + "".join(foreign)


def _row(name: str, cls: type[Layer], cases: tuple[int, ...]) -> str:
    known = [_knows(cls, dialect) for dialect in DIALECTS]
    engines = ["no", "no", "no"] if cls.refused else ["yes", *(["no", "no"] if cls.no_onnx else ["yes", "yes"])]
    proof = " / ".join(map(str, cases)) if any(cases) else "by hand" if not cls.refused else "-"
    why = cls.refused or (f"PyTorch only: {cls.no_onnx}" if cls.no_onnx else "")
    remarks = "; ".join(text for text in (why, cls.note) if text)
    return f"| {' | '.join([name, *known, *engines, _axes(cls.spatial_axes), proof, remarks])} |\n"


def _knows(cls: type[Layer], dialect: str) -> str:
    if dialect not in cls.dialects:
        return "-"
    return "2-D" if dialect in cls.refused_in_3d else "yes"


def _axes(span: tuple[int, int | None]) -> str:
    least, most = span
    if most is None:
        return "any" if least == 0 else f"{least} or more"
    return str(least) if least == most else f"{least} to {most}"


def count_cases(ops: Path) -> dict[str, tuple[int, ...]]:
    """Number of cases below `ops/<dialect>/` that contain each type.

    Raises:
        PrototxtError: a case cannot be read.
    """
    found: dict[str, Counter[str]] = {}
    for dialect in DIALECTS:
        for text in (ops / dialect).glob("*/deploy.prototxt"):
            specs = read_layer_specs(read_text(text, "NetParameter", dialect), NetState(), dialect)
            for name in {spec.type for spec in specs}:
                found.setdefault(name, Counter())[dialect] += 1
    return {name: tuple(counter[dialect] for dialect in DIALECTS) for name, counter in sorted(found.items())}


def read_counts(path: Path) -> dict[str, tuple[int, ...]]:
    """The counts in a CSV file with the columns type, and one for each dialect."""
    with open(path, newline="", encoding="utf-8") as file:
        return {row["type"]: tuple(int(row[dialect]) for dialect in DIALECTS) for row in csv.DictReader(file)}


def write_counts(path: Path, counts: Counts) -> None:
    """The same, written whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["type", *DIALECTS])
    writer.writerows([name, *numbers] for name, numbers in counts.items())
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Write `docs/layers.md`, after counting the reference cases if a folder of data is given."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, help="reference data: count the cases in its caffe_golden/ops anew")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="folder for layers.md (default: that of the repository)"
    )
    given = parser.parse_args(arguments)
    if given.data:
        write_counts(DOCS / "golden_cases.csv", count_cases(given.data / "caffe_golden" / "ops"))
    with replacing(given.docs / "layers.md") as temporary:
        temporary.write_text(table(read_counts(DOCS / "golden_cases.csv")), encoding="utf-8")


if __name__ == "__main__":
    main()
