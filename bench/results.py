"""All benchmarks in one go, and the page of their figures: `python -m bench.results FOLDER` builds that.

`--run` measures first (`make bench` does): each benchmark is a command in a process of its own, its JSON goes into
FOLDER under the benchmark's name, and what became of it into `results.json`. The page and its pictures are made from
those files alone. A benchmark that fails is a section that says so; the others still run. To add one, add a line to
`benchmarks`: its module has `markdown(figures)` and `draw_<name>(figures, path)`.
"""

import datetime
import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.machine import Machine, describe
from caffe_models.atomic import replacing
from caffe_models.errors import Rpn3dError
from runtime.engines.openvino_engine import fast_precision

SCHEMA_VERSION = 1
NOTES = "results.json"
ROOT = Path(__file__).resolve().parent.parent
RPN3D = (sys.executable, "-m", "rpn3d")
LIMIT_S = 600.0
"""A benchmark that takes longer hangs, or is too large for this machine."""

TILE = ("--input", "data=1,1,96,96,96", "--input", "coord=1,3,24,24,24")
"""Of the engines, which run it dozens of times."""
CLASSIC_TILE = ("--input", "data=1,1,128,128,128", "--input", "coord=1,3,32,32,32")
"""Instead, where bfloat16 says that the processor is a fast one: it takes twice as long."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """One section of the page.

    Attributes:
        name: of its files in the folder; title: of its section.
        arguments: of `rpn3d`, without `-o`.
        file: that the command writes there.
        module: with `markdown` and `draw`, or MODULE_report has them.
        draw: name of the function that draws the picture.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    file: str
    module: str
    draw: str


def benchmarks(
    scan: str,
    folder: str | None = None,
    model: str | None = None,
    int8: str | None = None,
    cpus: int | None = None,
    *,
    bf16: bool = False,
) -> tuple[Benchmark, ...]:
    """What is measured, in the order of the page; only what this version has.

    Args:
        scan: one scan, for most of them.
        folder: several scans, for the pace over many; None: left out.
        model: folder of built models; None: those that come along.
        int8: the int8 model; None: there is none, and int8 is left out.
        cpus: cores to use; None: all that are allowed.
        bf16: measure bfloat16, too: where the processor computes in it.
    """
    with_model = () if model is None else ("--model", model)
    limits = () if cpus is None else ("--cpus", str(cpus))
    precisions = ",".join(["f32", *["bf16"] * bf16, *["int8"] * bool(int8)])
    best = "int8" if int8 else "auto"

    def bench(title: str, *arguments: str, name: str = "", module: str = "") -> Benchmark:
        kind = arguments[0]
        full = ("bench", *arguments, *(() if "--cpus" in arguments else limits))
        return Benchmark(name or kind, title, full, f"bench_{kind}.json", module or f"bench.{kind}", f"draw_{kind}")

    every = [
        bench("A scan, file to CSV", "scan", scan, "--precision", best, "--runs", "2", "--warm", "2", *with_model),
        bench(
            "The same in float32",
            # in a warm process it is measured against the classic way
            *("scan", scan, "--precision", "f32", "--runs", "1", "--warm", "0", *with_model),
            name="scan_f32",
        ),
        bench(
            "Engines side by side",
            *("engines", "--runs", "2", *(CLASSIC_TILE if bf16 else TILE)),
            *(() if int8 is None else ("--int8", int8)),
        ),
        bench(
            "Under a budget",
            # every cell is a run of a whole scan, so here one precision and two sizes of memory: one that does for
            # the largest window, and one that does not
            *("budget", scan, "--precision", best, "--memory", "1G,4G", *with_model),
            *(() if cpus is None else ("--cpus", ",".join(map(str, sorted({1, cpus}))))),
        ),
        bench("Scaling, and the roof", "scaling", "--precision", precisions, "--quick", *with_model),
        bench("Against the classic way", "naive", scan, "--precision", precisions, "--runs", "1", *with_model),
        bench("Training", "train", "--steps", "4", module="bench.training"),
    ]
    if bf16:
        slow = ("scan", scan, "--precision", "bf16", "--runs", "1", "--warm", "1", *with_model)
        every.insert(1, bench("The same in bfloat16", *slow, name="scan_bf16"))
    if folder is not None:
        pace = ("scan", folder, "--precision", best, "--runs", "1", "--warm", "1", *with_model)
        every.insert(1, bench("Many scans", *pace, name="scan_folder"))
    return tuple(one for one in every if importlib.util.find_spec(one.module) is not None)


def measure_all(
    every: Sequence[Benchmark],
    folder: str | Path,
    *,
    command: Sequence[str] = RPN3D,
    limit_s: float = LIMIT_S,
    only: Sequence[str] = (),
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Run them one after the other; each leaves NAME.json in the folder, or a message in `results.json`.

    Earlier figures of a benchmark that fails now are taken away: the page must not show them as today's.

    Args:
        only: names of those to run; the others stay as they were measured in `folder`, on this very machine.

    Raises:
        Rpn3dError: there is no benchmark of such a name, or nothing of this machine in `folder` to keep.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if unknown := sorted({*only} - {one.name for one in every}):
        raise Rpn3dError(f'--only "{unknown[0]}": allowed: {", ".join(one.name for one in every)}')
    kept = _kept(folder) if only else {}
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "date": kept.get("date", date),
        "machine": kept.get("machine", describe().as_json()),
        "benchmarks": [],
    }
    before = {one["name"]: one for one in kept.get("benchmarks", [])}
    for number, one in enumerate(every, 1):
        if only and one.name not in only:
            notes["benchmarks"] += [before[one.name]] if one.name in before else []
            continue
        say(f"[{number}/{len(every)}] rpn3d {' '.join(one.arguments)}")
        start = time.perf_counter()
        message = _measure(one, folder, command, limit_s)
        seconds = time.perf_counter() - start
        say(f"[{number}/{len(every)}] {message or 'done'}, {seconds:.0f} s")
        notes["benchmarks"].append(
            {
                "name": one.name,
                "title": one.title,
                "command": ["rpn3d", *one.arguments],
                "module": one.module,
                "draw": one.draw,
                "date": date,
                "seconds": seconds,
                "message": message,
            }
        )
        if not only:
            _write(folder / NOTES, json.dumps(notes, indent=1) + "\n")
    _write(folder / NOTES, json.dumps(notes, indent=1) + "\n")
    return notes


def _kept(folder: Path) -> dict[str, Any]:
    """What was measured before, if that was here."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        was, now = Machine(**notes["machine"]), describe()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Rpn3dError(f"--only: {folder / NOTES} cannot be read ({error}); measure everything first") from error
    alike = was.cpu == now.cpu and [*was.flags] == [*now.flags] and was.usable_cpus == now.usable_cpus
    if not alike or was.packages != now.packages:
        raise Rpn3dError(
            f"--only: {folder} is of another machine or other versions, {was.line()}, {was.packages}; "
            f"this is {now.line()}, {now.packages}: measure everything"
        )
    return notes


def build_page(folder: str | Path, page: str | Path, say: Say = lambda text: None) -> Path:
    """Write the page from the JSON files of `folder`, and a picture beside each of them.

    A section whose figures cannot be shown says so.

    Raises:
        Rpn3dError: there is no results.json, or it is none.
    """
    folder, page = Path(folder), Path(page)
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        machine = Machine(**notes["machine"])
        sections = [_section(one, folder, page.parent, notes["date"], say) for one in notes["benchmarks"]]
        total = sum(one["seconds"] for one in notes["benchmarks"])
    except FileNotFoundError as error:
        raise Rpn3dError(f"{folder}: there is no {NOTES}; `make bench` measures and writes it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Rpn3dError(f"{folder / NOTES}: not as `make bench` writes it ({error}); run it again") from error
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    head = [
        "# Results",
        "",
        "Written by `make bench`, from the JSON files beside the pictures: `python -m bench.results FOLDER` builds it "
        "anew. Ratios travel, absolute figures do not.",
        "",
        f"- machine: {machine.line()}",
        f"- versions: Python {machine.python}, {packages}",
        f"- date: {notes['date']}; all of it took {total / 60:.1f} minutes",
    ]
    _write(page, "\n".join([*head, *sections]).rstrip() + "\n")
    return page


def _measure(one: Benchmark, folder: Path, command: Sequence[str], limit_s: float) -> str:
    """Run one; what went wrong, or ""."""
    target = folder / f"{one.name}.json"
    for old in (target, target.with_suffix(".png")):
        old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="rpn3d-bench-") as made:
        try:
            done = subprocess.run(
                [*command, *one.arguments, "-o", made],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it was ended after {limit_s:g} s"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
            return f"it ended with exit code {done.returncode}: {last}"
        found = Path(made, one.file)
        if not found.is_file():
            return f"it wrote no {one.file}"
        _write(target, found.read_text(encoding="utf-8"))
    return ""


def _section(one: Mapping[str, Any], folder: Path, base: Path, date: str, say: Say) -> str:
    lines = ["", f"## {one['title']}", "", f"    {' '.join(one['command'])}", ""]
    if one.get("date", date) != date:
        lines += [f"Measured anew on {one['date']}.", ""]
    if one["message"]:
        return "\n".join([*lines, f"Not measured: {one['message']}"])
    try:
        figures = json.loads((folder / f"{one['name']}.json").read_text(encoding="utf-8"))
        text: str = view_of(one["module"], "markdown")(figures)
        picture = folder / f"{one['name']}.png"
        view_of(one["module"], one["draw"])(figures, picture)
    except Exception as error:  # one module's trouble must not cost the page of the others
        message = " ".join(f"{type(error).__name__}: {error}".split())
        say(f"{one['name']}: {message}")
        return "\n".join([*lines, f"Its figures cannot be shown: {message}"])
    place = picture.relative_to(base) if picture.is_relative_to(base) else picture
    return "\n".join([*lines, text, "", f"![{one['title']}]({place.as_posix()})"])


def view_of(module: str, name: str) -> Callable[..., Any]:
    """A function of the benchmark's module, or of the one of its views."""
    for place in (module, f"{module}_report"):
        if importlib.util.find_spec(place) is not None:
            found: Callable[..., Any] | None = getattr(importlib.import_module(place), name, None)
            if found is not None:
                return found
    raise Rpn3dError(f"neither {module} nor {module}_report has {name}()")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(
    folder: Annotated[Path, typer.Argument(help="Of the JSON files and pictures.")],
    page: Annotated[Path | None, typer.Option(help="Default: RESULTS.md beside the folder.")] = None,
    run: Annotated[str | None, typer.Option(metavar="SCAN", help="Measure first, on this scan.")] = None,
    scans: Annotated[str | None, typer.Option(help="Folder of scans, for the pace over many.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder of built models.")] = None,
    int8: Annotated[str | None, typer.Option(help="The int8 model; none: int8 is left out.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Cores to use.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure these alone, by name; the others stay.")] = None,
) -> None:
    """Measure (with --run), then write the page."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        if only and run is None:
            raise Rpn3dError("--only needs --run SCAN, to measure on")
        if run is not None:
            bf16 = fast_precision() == "bf16"
            every = benchmarks(run, scans, model, int8, cpus, bf16=bf16)
            measure_all(every, folder, only=only or (), say=say)
        print(build_page(folder, page or folder.parent / "RESULTS.md", say))
    except Rpn3dError as error:
        say(f"rpn3d: {error}")
        sys.exit(2)


if __name__ == "__main__":
    typer.run(main)
