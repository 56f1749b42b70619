"""Weights and solver states in HDF5, as Caffe lays them out with `snapshot_format: HDF5`.

`X.caffemodel.h5`: `data/<layer>/<index>`, one dataset of floats for each blob; layers without blobs are empty groups,
and a blob that is shared is there only under the layer that owns it. `X.solverstate.h5`: `iter`, `current_step` (one
int32 each), `learned_net` (a text), `history/<index>`; Intel and Extended Caffe add `iter_last_event` and
`minimum_loss`. Whatever else there is (`diff`, of snapshot_diff) is left alone.

A file is not trusted: only groups and float datasets that lie in it are read, links to other places and files are
refused, and no dataset is read before its declared size was held against the size of the file.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from caffe_models.atomic import replacing
from caffe_models.errors import WeightsError

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUFFIX = ".h5"
"""End of the name by which a file to be written is asked for in HDF5; a file to be read is known by its signature."""

ABSENT: npt.NDArray[np.float32] = np.zeros(0, np.float32)
"""Stands in a layer's list for a blob that the file does not hold, since the net shares it with another layer."""
ABSENT.flags.writeable = False

_MAX_MEMBERS = 100_000
_MAX_AXES = 32

Blob = npt.NDArray[np.float32]


def read_blobs(path: str | os.PathLike[str]) -> dict[str, list[Blob]]:
    """The blobs of a `.caffemodel.h5` by layer name; layers without blobs are absent.

    Raises:
        WeightsError: no weights in it, damaged, links, datasets of something else than floats, or datasets that declare
            more numbers than the file can hold.
    """
    with _opened(path) as file:
        layers = _group(file.file, "data", file.source)
        if layers is None:
            what = "it looks like a .solverstate.h5" if _has(file.file, "iter") else "it has no group `data`"
            raise WeightsError(f"{file.source}: not a .caffemodel.h5: {what}")
        if not len(layers):
            raise WeightsError(f"{file.source}: not a .caffemodel.h5: there is no layer in it")
        found: dict[str, list[Blob]] = {}
        for name in _names(layers, file.source):
            layer = _group(layers, name, file.source)
            assert layer is not None  # a name that is there
            if blobs := file.numbered(layer, f'layer "{name}": blob'):
                found[name] = blobs
        return found


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The parts of a `.solverstate.h5`: iter, learned_net, current_step, history, and where they are there
    iter_last_event and minimum_loss.

    Raises:
        WeightsError: as `read_blobs`; and a file without `iter` or `history`, which is no solver state.
    """
    with _opened(path) as file:
        history = _group(file.file, "history", file.source)
        if history is None or not _has(file.file, "iter"):
            what = "it looks like a .caffemodel.h5" if _has(file.file, "data") else "it has no `iter` and `history`"
            raise WeightsError(f"{file.source}: not a .solverstate.h5: {what}")
        parts: dict[str, Any] = {"history": file.numbered(history, "history", gaps=False)}
        for name in ("iter", "current_step", "iter_last_event"):
            if _has(file.file, name):
                parts[name] = int(file.number(name, "iu"))
        if _has(file.file, "minimum_loss"):
            parts["minimum_loss"] = float(file.number("minimum_loss", "f"))
        parts["learned_net"] = file.text("learned_net") if _has(file.file, "learned_net") else ""
        return parts


def write_blobs(path: str | os.PathLike[str], weights: Mapping[str, Sequence[npt.NDArray[np.floating]]]) -> None:
    """Write blobs as a `.caffemodel.h5`; the file appears whole or not at all.

    Raises:
        WeightsError: a layer's name that HDF5 takes for a path; Caffe cannot write it either.
        OSError: the file cannot be written.
    """
    source = os.fspath(path)
    for name in weights:
        if "/" in name or name in ("", "."):
            raise WeightsError(
                f'{source}: HDF5 cannot hold a layer named "{name}" ("/" separates groups); write a .caffemodel instead'
            )
    with _created(path) as file:
        layers = file.create_group("data")
        for name, blobs in weights.items():
            _add_numbered(layers.create_group(name), blobs)


def write_state(path: str | os.PathLike[str], parts: Mapping[str, Any]) -> None:
    """Write what `read_state` gives back; the file appears whole or not at all. Raises OSError as `write_blobs`."""
    with _created(path) as file:
        for name in ("iter", "current_step", "iter_last_event"):
            if parts.get(name) is not None:
                file.create_dataset(name, data=np.array([parts[name]], np.int32))
        if parts.get("minimum_loss") is not None:
            file.create_dataset("minimum_loss", data=np.array([parts["minimum_loss"]], np.float32))
        _add_text(file, "learned_net", parts["learned_net"])
        _add_numbered(file.create_group("history"), parts["history"])


class _File:
    """An open file; `left` is how many bytes of numbers it may yet turn out to hold."""

    def __init__(self, file: "h5py.File", source: str, size: int) -> None:
        self.file, self.source, self.left = file, source, size

    def numbered(self, group: "h5py.Group", what: str, gaps: bool = True) -> list[Blob]:
        """The datasets `0`, `1`, ... of a group, in that order; ABSENT for those that are missing between them."""
        names = list(_names(group, self.source))
        if not all(name.isascii() and name.isdigit() and len(name) <= 6 for name in names):
            odd = next(name for name in names if not (name.isascii() and name.isdigit() and len(name) <= 6))
            raise WeightsError(f'{self.source}: {what}: found "{odd}"; allowed: 0, 1, 2 and so on')
        indices = sorted(int(name) for name in names)
        count = indices[-1] + 1 if indices else 0
        if indices != list(range(count)) and (not gaps or count > 64):
            raise WeightsError(f"{self.source}: {what}s {indices[:5]} of {count} are there; some are missing")
        return [
            self.array(group, str(index), f"{what} {index}") if _has(group, str(index)) else ABSENT
            for index in range(count)
        ]

    def array(self, group: "h5py.Group", name: str, what: str) -> Blob:
        dataset = self.dataset(group, name, what, "f")
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(dataset[()], np.float32).reshape(dataset.shape)

    def number(self, name: str, kinds: str) -> Any:
        dataset = self.dataset(self.file, name, name, kinds)
        if dataset.size != 1:
            raise WeightsError(f"{self.source}: {name}: has {dataset.size} values; allowed: one")
        return np.asarray(dataset[()]).reshape(-1)[0]

    def text(self, name: str) -> str:
        value = self.dataset(self.file, name, name, "S")[()]
        if not isinstance(value, bytes):
            raise WeightsError(f"{self.source}: {name}: is no single text")
        return value.split(b"\0")[0].decode("utf-8", "backslashreplace")

    def dataset(self, group: "h5py.Group", name: str, what: str, kinds: str) -> "h5py.Dataset":
        """A dataset that may be read: numbers of these NumPy kinds, in this file, no more than it has room for."""
        import h5py

        found = _member(group, name, self.source)
        if not isinstance(found, h5py.Dataset) or found.shape is None:
            raise WeightsError(f"{self.source}: {what}: is no array")
        if found.dtype.kind not in kinds or (kinds == "f" and found.dtype.itemsize not in (4, 8)):
            wanted = {"f": "float or double", "iu": "a whole number", "S": "a text of fixed length"}[kinds]
            raise WeightsError(f"{self.source}: {what}: is of type {found.dtype}; allowed: {wanted}")
        if found.is_virtual or found.external:
            raise WeightsError(f"{self.source}: {what}: lies in another file; it is not followed")
        if found.ndim > _MAX_AXES:
            raise WeightsError(f"{self.source}: {what}: has {found.ndim} axes; allowed: up to {_MAX_AXES}")
        if found.nbytes > self.left:
            raise WeightsError(
                f"{self.source}: {what}: declares shape {found.shape}, more than the file has room for: damaged, or "
                "compressed (save it without compression)"
            )
        self.left -= found.nbytes
        return found


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[_File]:
    import h5py

    source = os.fspath(path)
    try:
        with h5py.File(source, "r") as file:
            yield _File(file, source, os.path.getsize(source))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeDecodeError, MemoryError) as error:
        raise WeightsError(f"{source}: not a whole HDF5 file: {' '.join(str(error).split())}") from error


@contextmanager
def _created(path: str | os.PathLike[str]) -> Iterator["h5py.File"]:
    import h5py

    with replacing(path) as temporary, h5py.File(temporary, "w", libver="earliest") as file:
        yield file


def _names(group: "h5py.Group", source: str) -> list[str]:
    if len(group) > _MAX_MEMBERS:
        raise WeightsError(f"{source}: more than {_MAX_MEMBERS} members in {group.name}; this is no file of Caffe's")
    return list(group)


def _has(group: "h5py.Group", name: str) -> bool:
    """Whether there is a link of that name; h5py's own `in` would follow it, into other files too."""
    return bool(group.id.links.exists(name.encode()))


def _member(group: "h5py.Group", name: str, source: str) -> Any:
    """What `name` is in the group. Raises WeightsError for links to somewhere else."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise WeightsError(f'{source}: "{name}" is a link to another place; only what lies in the file is read')
    return group[name]


def _group(parent: "h5py.Group", name: str, source: str) -> "h5py.Group | None":
    """A group inside `parent`; None where there is nothing of that name."""
    import h5py

    if not _has(parent, name):
        return None
    found = _member(parent, name, source)
    if not isinstance(found, h5py.Group):
        raise WeightsError(f'{source}: "{name}" is no group of layers or blobs; this is no file of Caffe\'s')
    return found


def _add_numbered(group: "h5py.Group", arrays: Sequence[npt.NDArray[np.floating]]) -> None:
    for index, array in enumerate(arrays):
        if array is not ABSENT:
            group.create_dataset(str(index), data=np.ascontiguousarray(array, "<f4").reshape(np.shape(array)))


def _add_text(group: "h5py.Group", name: str, text: str) -> None:
    """A text with the zero byte at its end that Caffe's reader, in C, relies on; h5py's own fixed texts lack it."""
    from h5py import h5d, h5s, h5t

    kind = h5t.C_S1.copy()
    data = text.encode()
    kind.set_size(len(data) + 1)
    kind.set_strpad(h5t.STR_NULLTERM)
    dataset = h5d.create(group.id, name.encode(), kind, h5s.create(h5s.SCALAR))
    dataset.write(h5s.ALL, h5s.ALL, np.array(data, f"S{len(data) + 1}"), kind)
