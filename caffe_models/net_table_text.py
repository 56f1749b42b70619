"""The tables of `net_table` and `weights_table` as text that fits 120 columns."""

import textwrap
from collections.abc import Mapping, Sequence
from fractions import Fraction

from caffe_models.layer import Shape
from caffe_models.net_table import LayerRow, NetTable
from caffe_models.weights_table import StoredLayer, WeightsFit, shown

_NAME, _TYPE, _SHAPE = 26, 18, 20


def net_text(table: NetTable) -> str:
    """The whole report: what was read, a line for each layer (and each further top), totals, weights."""
    lines = [
        f"{short(table.name, 30)}: {short(table.source, 50)}, phase {table.phase}, {table.precision}",
        *textwrap.wrap(
            f"dialect  {table.dialect}: {table.dialect_reason or 'not detected'}", 118, subsequent_indent=" " * 9
        ),
        f"inputs   {_blobs(table.inputs)}",
        f"outputs  {_blobs(table.outputs)}",
        "",
        f"{'layer':<{_NAME}}{'type':<{_TYPE}}{'top shape':<{_SHAPE}}{'parameters':>12}{'mult-adds':>11}"
        f"{'top':>9}{'live':>9}{'field':>9}{'step':>6}",
    ]
    for row in table.rows:
        lines += _row_lines(row)
    lines += ["", *_totals(table)]
    if table.weights is not None:
        lines += ["", *fit_lines(table.weights)]
    return "\n".join(lines)


def stored_text(source: str, layers: Sequence[StoredLayer]) -> str:
    """The layers of a weights file: type, shapes of the blobs, values, bytes as float32."""
    holding = [layer for layer in layers if layer.shapes]
    lines = [f"{'layer':<{_NAME}}{'type':<{_TYPE}}{'values':>12}{'bytes':>11}  blobs"]
    for layer in holding:
        start = f"{short(layer.name, _NAME - 2):<{_NAME}}{short(layer.type or '-', _TYPE - 2):<{_TYPE}}"
        for index, text in enumerate(wrapped([shown(shape) for shape in layer.shapes], 48)):
            head = start + f"{layer.values:>12,}{binary(4 * layer.values):>11}" if index == 0 else " " * len(start)
            lines.append(f"{head:<{_NAME + _TYPE + 23}}  {text}")
    values = sum(layer.values for layer in holding)
    bare = len(layers) - len(holding)
    lines += [
        "",
        f"{source}: {len(layers)} layers, {len(holding)} with blobs, {bare} without; "
        f"{values:,} values, {binary(4 * values)} as f32",
        "The prototxt is the truth about the topology, which the dialects write with different field numbers.",
    ]
    return "\n".join(lines)


def fit_lines(fit: WeightsFit) -> list[str]:
    """What of a weights file goes where, and what does not; long lists in full, wrapped."""
    verdict = "every layer gets its blobs" if fit.fits else "does NOT fit the net"
    lines = [f"weights  {fit.source}: {verdict}; {len(fit.loaded)} layers loaded"]
    kinds = (
        ("missing", "in the net only, would keep initial values", fit.missing),
        ("unused", "in the file only", fit.unused),
        ("folded", "into the convolution before them, as Intel Caffe saves TEST nets", fit.folded),
    )
    for kind, meaning, names in kinds:
        if names:
            lines.append(f"  {kind} {len(names)} ({meaning}):")
            lines += [f"    {text}" for text in wrapped(names, 110)]
    if fit.misfits:
        lines.append(f"  misfits {len(fit.misfits)}:")
        lines += [f"    {text}" for text in fit.misfits]
    return lines


def short(text: str, width: int) -> str:
    """`text` in at most `width` characters, the middle left out: both ends of a layer's name tell something."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    if len(clean) <= width:
        return clean
    front = (width - 1) // 2
    return f"{clean[:front]}…{clean[len(clean) - (width - 1 - front) :]}"


def decimal(count: float) -> str:
    """168,700,000,000 as "168.7 G"; below 10,000 as it is."""
    return _scaled(count, 1000, ("", " k", " M", " G", " T", " P"))


def binary(size: float) -> str:
    """Bytes as "12.0 Mi", in powers of 1024."""
    return _scaled(size, 1024, (" B", " Ki", " Mi", " Gi", " Ti", " Pi"))


def wrapped(parts: Sequence[str], width: int) -> list[str]:
    """The parts, comma-separated, on lines of at most `width` characters (a longer part has a line of its own)."""
    lines = [""]
    for index, part in enumerate(parts):
        text = part + ("," if index < len(parts) - 1 else "")
        if lines[-1] and len(lines[-1]) + 1 + len(text) > width:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + text
    return lines


def per_axis(values: Sequence[float]) -> str:
    """One value where all axes have the same, else one for each; halves as 1/2."""
    texts = [str(Fraction(value).limit_denominator(1024)) for value in values]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def _row_lines(row: LayerRow) -> list[str]:
    shapes = [shown(shape) for shape in row.shapes] or ["-"]
    field = per_axis(row.field) if row.field else "-"
    step = per_axis(row.stride) if row.stride else "-"
    first = (
        f"{short(row.name, _NAME - 2):<{_NAME}}{short(row.type, _TYPE - 2):<{_TYPE}}{shapes[0]:<{_SHAPE}}"
        f"{f'{row.parameters:,}' if row.parameters else '-':>12}"
        f"{decimal(row.multiply_adds) if row.multiply_adds else '-':>11}"
        f"{binary(row.top_bytes):>9}{binary(row.live_bytes):>9}{short(field, 8):>9}{short(step, 5):>6}"
    )
    return [first, *(f"{'':<{_NAME + _TYPE}}{shape}" for shape in shapes[1:])]


def _totals(table: NetTable) -> list[str]:
    kinds = [f"{count} {kind}" for kind, count in table.types.items()]
    peak = table.peak_row
    lines = [f"{len(table.rows)} layers: " + wrapped(kinds, 104)[0]]
    lines += [f"  {text}" for text in wrapped(kinds, 104)[1:]]
    lines += [
        f"parameters       {table.parameters:,} ({binary(table.weight_bytes)}B as {table.precision})",
        f"multiply-adds    {table.multiply_adds:,} in convolutions, deconvolutions, inner products, RNN, LSTM; the "
        "rest is not counted",
        f"peak of blobs    {binary(table.peak_bytes)}B at layer {short(peak.name, 40) if peak else '-'}: "
        "inputs, what is still to be read, its own tops",
        f"all tops at once {binary(sum(row.top_bytes for row in table.rows))}B: at most what training keeps for its "
        "gradients",
        "field, step      voxels of the first input that one voxel sees, and between neighbours; - where not defined",
    ]
    return lines


def _blobs(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{short(name, 40)} {shown(shape)}" for name, shape in shapes.items()) or "none"


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    if abs(value) < (10_000 if base == 1000 else base):
        return f"{value:.0f}{units[0]}"
    for unit in units[1:]:
        value /= base
        if abs(value) < base * 0.9995 or unit == units[-1]:
            break
    return f"{value:.3g}{unit}" if abs(value) < 999.5 else f"{value:.0f}{unit}"
