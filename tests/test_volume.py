"""Reading scans of one file: every format and orientation, every number type, everything that can be wrong."""

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scan_files import (
    BRIGHT,
    ORIGIN_MM,
    SHAPE,
    SPACING_MM,
    rotation,
    signed_permutations,
    small_grid,
    small_scan,
    write_dicom,
    write_scan,
)

from runtime.errors import ScanError
from runtime.grid import Grid
from runtime.stored_voxels import PIECE_BYTES
from runtime.volume import Volume, read_volume

SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd")
FORMATS = (*SUFFIXES, "dicom")


def written(folder: Path, kind: str, grid: Grid) -> Path:
    if kind == "dicom":
        return write_dicom(folder / "series", small_scan(), grid)
    return write_scan(folder / f"scan{kind}", small_scan(), grid, compress=True)


def bright_world(volume: Volume) -> np.ndarray:
    return volume.grid.to_world(np.unravel_index(int(np.argmax(volume.hu)), volume.hu.shape))


def refused(path: Path, *essences: str) -> str:
    """The message of a scan that must be refused; holds what a user needs, in one line, without noise."""
    with pytest.raises(ScanError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert str(path.parent) not in message
    assert "0x" not in message
    assert len(message) < 420, message
    for essence in essences:
        assert essence in message, message
    return message


def patched(path: Path, pattern: str, new: str) -> Path:
    """Replace the first match of a regular expression in a header."""
    head, count = re.subn(pattern, new, path.read_bytes().decode("latin-1"), count=1)
    assert count == 1, pattern
    path.write_bytes(head.encode("latin-1"))
    return path


def poked(path: Path, offset: int, letters: str, *values: float) -> Path:
    """Overwrite binary fields of a header."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + letters, data, offset, *values)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_any_orientation_brings_a_voxel_to_its_place(tmp_path: Path, kind: str) -> None:
    oblique = [rotation(seed) for seed in range(3)] + [rotation(5) @ np.diag([1, -1, -1])]
    for number, direction in enumerate([*signed_permutations(), *oblique]):
        if kind.startswith(".nii") and np.linalg.det(direction) < 0 and number % 4:
            continue  # ITK writes mirrored NIfTI well; a few suffice
        grid = small_grid(direction)
        folder = tmp_path / str(number)
        folder.mkdir()
        volume = read_volume(written(folder, kind, grid))
        truth = grid.to_world(BRIGHT)
        np.testing.assert_allclose(bright_world(volume), truth, atol=1e-3)
        np.testing.assert_allclose(volume.grid.to_world(volume.grid.to_voxel(truth)), truth, atol=1e-6)
        assert volume.grid.shape == volume.hu.shape
        cosines = np.reshape(volume.grid.direction, (3, 3))
        assert (np.diag(cosines) > 0.7).all()
        stored = np.round(volume.file_grid.to_voxel(truth)).astype(int)
        if kind != "dicom":
            assert tuple(stored) == BRIGHT
            assert volume.file_grid.shape == SHAPE
        else:
            assert tuple(stored[1:]) == BRIGHT[1:]
            # slices count upwards along the normal, so a mirrored stack is counted from its other end
            assert stored[0] == (BRIGHT[0] if np.linalg.det(direction) > 0 else SHAPE[0] - 1 - BRIGHT[0])
        assert np.sort(volume.hu, axis=None).tolist() == np.sort(small_scan(), axis=None).tolist()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_volume_tells(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, small_grid())
    volume = read_volume(path)
    assert volume.hu.dtype == np.int16
    assert volume.hu.flags.c_contiguous
    assert volume.seriesuid == ("1.2.826.0.1.3680043.8.498.1" if kind == "dicom" else "scan")
    assert volume.source == str(path)
    assert volume.notes == ()
    np.testing.assert_array_equal(volume.hu, small_scan())
    np.testing.assert_allclose(volume.grid.spacing_mm, SPACING_MM, rtol=1e-6)
    np.testing.assert_allclose(volume.grid.origin_mm, ORIGIN_MM, rtol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "int64", "float32", "float64", "uint16"])
def test_every_number_type_reads_as_simpleitk_does(tmp_path: Path, suffix: str, compress: bool, dtype: str) -> None:
    values = np.random.default_rng(1).uniform(-1100, 3000, (12, 70, 65))
    values = values.clip(np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype[0] in "iu" else values
    stored = values.astype(dtype)
    path = write_scan(tmp_path / f"a{suffix}", stored, small_grid(shape=(12, 70, 65)), compress)
    if dtype in ("int8", "uint16", "uint32"):  # cannot be Hounsfield units of a chest: nothing near air
        refused(path, "cannot be the Hounsfield units")
        return
    truth = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float64)
    np.testing.assert_array_equal(read_volume(path).hu, np.maximum(np.rint(truth), -1024))


def test_values_are_rounded_and_kept_in_range(tmp_path: Path) -> None:
    values = small_scan().astype(np.float32)
    values[3, 3, :8] = [-3024, -2000, -1024.4, -999.6, 0.5, 1.5, 32767.9, 1e9]
    hu = read_volume(write_scan(tmp_path / "a.mha", values, small_grid())).hu
    assert hu[3, 3, :8].tolist() == [-1024, -1024, -1024, -1000, 0, 2, 32767, 32767]


def test_padding_of_an_integer_file_becomes_the_floor(tmp_path: Path) -> None:
    values = small_scan()
    values[1] = -3024
    values[2, 0] = -2000
    hu = read_volume(write_scan(tmp_path / "a.mhd", values, small_grid())).hu
    assert (hu[1] == -1024).all()
    assert (hu[2, 0] == -1024).all()
    assert hu[3, 3, 3] == -800


def test_a_nifti_scale_is_applied(tmp_path: Path) -> None:
    stored = ((small_scan().astype(np.int32) + 1024) * 2).astype(np.int16)
    path = poked(write_scan(tmp_path / "a.nii", stored, small_grid()), 112, "2f", 0.5, -1024.0)
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())


def test_big_endian_files(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid())
    (tmp_path / "a.raw").write_bytes(small_scan().astype(">i2").tobytes())
    patched(path, "BinaryDataByteOrderMSB = False", "BinaryDataByteOrderMSB = True")
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())
    path = patched(write_scan(tmp_path / "b.nrrd", small_scan(), small_grid()), "endian: little", "endian: big")
    swapped = path.read_bytes()[: -small_scan().nbytes] + small_scan().astype(">i2").tobytes()
    path.write_bytes(swapped)
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())


def test_a_gzip_file_of_several_members(tmp_path: Path) -> None:
    plain = write_scan(tmp_path / "a.nii", small_scan(), small_grid()).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain[:1001]) + gzip.compress(plain[1001:]) + b"\0" * 40)
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())


def test_pieces_that_cut_voxels_in_two(tmp_path: Path) -> None:
    # well compressible, so that one piece inflates to many; float64 is cut at odd places by the 352 bytes before it
    shape = (16, 200, 200)
    values = np.full(shape, -800.0)
    values[:, :, ::7] = np.arange(16 * 200 * 29).reshape(16, 200, 29) % 900
    assert values.nbytes > 8 * PIECE_BYTES
    path = write_scan(tmp_path / "a.nii.gz", values, small_grid(shape=shape), compress=True)
    np.testing.assert_array_equal(read_volume(path).hu, values)


def test_a_header_beside_its_voxels_with_a_gap_before_them(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid())
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"x" * 100 + raw.read_bytes())
    patched(path, "ElementDataFile", "HeaderSize = 100\nElementDataFile")
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())
    patched(path, "HeaderSize = 100", "HeaderSize = -1")
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())


def test_a_detached_nrrd(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nrrd", small_scan(), small_grid())
    head, _, _ = path.read_bytes().partition(b"\n\n")
    (tmp_path / "voxels.raw").write_bytes(small_scan().tobytes())
    path.write_bytes(head + b"\ndata file: voxels.raw\n")
    np.testing.assert_array_equal(read_volume(path).hu, small_scan())


def test_what_a_header_leaves_open_is_noted(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid())
    volume = read_volume(patched(path, "TransformMatrix = .*\n", ""))
    assert "TransformMatrix" in volume.notes[0]
    path = poked(write_scan(tmp_path / "b.nii", small_scan(), small_grid()), 252, "2h", 0, 0)
    assert "qform_code" in read_volume(path).notes[0]
    path = write_scan(tmp_path / "c.nrrd", small_scan(), small_grid())
    patched(path, "space: .*\n", "")
    patched(path, "space directions: .*\n", "spacings: 1 1 2\n")
    patched(path, "space origin: .*\n", "")
    assert "space" in read_volume(path).notes[0]
    path = write_scan(tmp_path / "d.mha", small_scan(), replace(small_grid(), spacing_mm=(1.0, 1.0, 8.0)))
    assert "8 mm apart" in read_volume(path).notes[0]


MHD_FIELDS = {
    "no spacing": ("ElementSpacing = .*\n", "", "ElementSpacing"),
    "zero spacing": ("ElementSpacing = .*", "ElementSpacing = 0.7 0 2.5", "0.7 0 2.5"),
    "negative spacing": ("ElementSpacing = .*", "ElementSpacing = 0.7 0.7 -2.5", "positive"),
    "NaN spacing": ("ElementSpacing = .*", "ElementSpacing = 0.7 nan 2.5", "finite"),
    "absurd spacing": ("ElementSpacing = .*", "ElementSpacing = 0.7 0.7 2500", "0.1 to 20 mm"),
    "spacing in metres": ("ElementSpacing = .*", "ElementSpacing = 0.0007 0.0007 0.0025", "0.1 to 20 mm"),
    "two spacings": ("ElementSpacing = .*", "ElementSpacing = 0.7 0.7", "3 finite numbers"),
    "sheared": ("TransformMatrix = .*", "TransformMatrix = 1 0 0 0.3 1 0 0 0 1", "orthonormal"),
    "scaled": ("TransformMatrix = .*", "TransformMatrix = 2 0 0 0 2 0 0 0 2", "orthonormal"),
    "singular": ("TransformMatrix = .*", "TransformMatrix = 1 0 0 1 0 0 0 0 1", "orthonormal"),
    "null matrix": ("TransformMatrix = .*", "TransformMatrix = 0 0 0 0 0 0 0 0 0", "orthonormal"),
    "matrix of words": ("TransformMatrix = .*", "TransformMatrix = a b c d e f g h i", "9 finite numbers"),
    "origin of NaN": ("Offset = .*", "Offset = nan 0 0", "3 finite numbers"),
    "far origin": ("Offset = .*", "Offset = 1e9 0 0", "origin"),
    "no size": ("DimSize = .*\n", "", "DimSize"),
    "size of words": ("DimSize = .*", "DimSize = a b c", "DimSize is a b c"),
    "negative size": ("DimSize = .*", "DimSize = 13 -11 9", "13 x -11 x 9"),
    "few slices": ("DimSize = .*", "DimSize = 13 11 3", "at least 8 slices"),
    "more slices than voxels": ("DimSize = .*", "DimSize = 13 11 10", "truncated: found 2574 bytes"),
    "fewer slices than voxels": ("DimSize = .*", "DimSize = 13 11 8", "longer than its header says"),
    "more than memory": ("DimSize = .*", "DimSize = 100000 100000 100000", "1e+15 voxels"),
    "much, but below the limit": ("DimSize = .*", "DimSize = 1024 1024 2000", "truncated: found 2574 bytes"),
    "colour": ("ElementType = ", "ElementNumberOfChannels = 3\nElementType = ", "ElementNumberOfChannels is 3"),
    "unknown type": ("ElementType = .*", "ElementType = MET_FOO", "MET_FOO"),
    "no type": ("ElementType = .*\n", "", "ElementType"),
    "text": ("BinaryData = True", "BinaryData = False", "BinaryData"),
    "pattern of files": ("ElementDataFile = .*", "ElementDataFile = a%03d.raw 1 9 1", "one file"),
    "list of files": ("ElementDataFile = .*", "ElementDataFile = LIST", "one file"),
    "no data file": ("ElementDataFile = .*\n", "", "no MetaImage header"),
    "lost data file": ("ElementDataFile = .*", "ElementDataFile = lost.raw", "lost.raw is not there"),
    "odd skip": ("ElementDataFile", "HeaderSize = -5\nElementDataFile", "HeaderSize is -5"),
    "raw taken for compressed": ("CompressedData = False", "CompressedData = True", "damaged"),
    "2-D": ("NDims = 3\n(.|\n)*DimSize = .*", "NDims = 2\nElementSpacing = 1 1 1\nDimSize = 13 11", "2-D"),
    "4-D": ("NDims = 3\n(.|\n)*DimSize = .*", "NDims = 4\nElementSpacing = 1 1 1\nDimSize = 13 11 9 2", "4-D"),
}


@pytest.mark.parametrize("case", MHD_FIELDS)
def test_a_wrong_metaimage_header(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    pattern, new, essence = MHD_FIELDS[case]
    path = patched(write_scan(tmp_path / "a.mhd", small_scan(), small_grid()), pattern, new)
    refused(path, essence)
    assert capfd.readouterr() == ("", "")


NIFTI_FIELDS: dict[str, tuple[int, str, tuple[float, ...], str]] = {
    "zero spacing": (80, "f", (0.0,), "pixdim"),
    "negative spacing": (84, "f", (-1.0,), "positive"),
    "NaN spacing": (88, "f", (float("nan"),), "pixdim"),
    "metres": (123, "B", (1,), "0.1 to 20 mm"),
    "2-D": (40, "h", (2,), "2-D"),
    "4-D": (40, "5h", (4, 13, 11, 4, 2), "4-D"),
    "no axes": (40, "h", (0,), "dim[0] is 0"),
    "few slices": (46, "h", (2,), "at least 8"),
    "more slices than voxels": (46, "h", (10,), "truncated"),
    "more than memory": (42, "3h", (32767, 32767, 32767), "voxels"),
    "colour": (70, "h", (128,), "datatype is 128"),
    "bad offset": (108, "f", (float("nan"),), "vox_offset"),
    "NIfTI-2": (0, "i", (540,), "no NIfTI-1"),
    "pair": (344, "4s", (b"ni1\0",), "no NIfTI-1"),  # type: ignore[dict-item]
    "sheared sform": (280, "12f", (1, 0.5, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0), "orthonormal"),
    "singular sform": (280, "12f", (0,) * 12, "orthonormal"),
}


@pytest.mark.parametrize("case", NIFTI_FIELDS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_wrong_nifti_header(tmp_path: Path, case: str, zipped: bool, capfd: pytest.CaptureFixture[str]) -> None:
    offset, letters, values, essence = NIFTI_FIELDS[case]
    path = poked(write_scan(tmp_path / "a.nii", small_scan(), small_grid()), offset, letters, *values)
    if zipped:
        path = tmp_path / "a.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
        essence = {"truncated": "2574", "longer": "more voxels"}.get(essence, essence) if essence != "truncated" else ""
    refused(path, essence)
    assert capfd.readouterr() == ("", "")


def test_a_nifti_fourth_axis_of_one_is_fine(tmp_path: Path) -> None:
    path = poked(write_scan(tmp_path / "a.nii", small_scan(), small_grid(rotation(2))), 40, "5h", 4, 13, 11, 9, 1)
    np.testing.assert_allclose(bright_world(read_volume(path)), small_grid(rotation(2)).to_world(BRIGHT), atol=1e-3)


NRRD_FIELDS = {
    "no sizes": ("sizes: .*\n", "", "no sizes"),
    "no spacing": ("space directions: .*\n", "", "neither space directions nor spacings"),
    "NaN spacing": ("space directions: .*", "space directions: (nan,0,0) (0,1,0) (0,0,2)", "finite"),
    "null axis": ("space directions: .*", "space directions: (0,0,0) (0,1,0) (0,0,2)", "spacing"),
    "sheared": ("space directions: .*", "space directions: (1,0,0) (0.5,1,0) (0,0,2)", "orthonormal"),
    "singular": ("space directions: .*", "space directions: (1,0,0) (1,0,0) (0,0,2)", "orthonormal"),
    "metres": ("encoding", 'space units: "m" "m" "m"\nencoding', "space units"),
    "unknown space": ("left-posterior-superior", "scanner-xyz", "scanner-xyz"),
    "2-D": ("dimension: 3\n(.|\n)*sizes: .*", "dimension: 2\nsizes: 13 11", "2-D"),
    "4-D": ("dimension: 3\n(.|\n)*sizes: .*", "dimension: 4\nsizes: 3 13 11 9", "4-D"),
    "disagreeing sizes": ("sizes: .*", "sizes: 13 11", "with dimension 3"),
    "text": ("encoding: raw", "encoding: ascii", "raw and gzip"),
    "block": ("type: short", "type: block", "block"),
    "no endian": ("endian: little\n", "", "endian is missing"),
    "more slices": ("sizes: .*", "sizes: 13 11 10", "truncated"),
    "more than memory": ("sizes: .*", "sizes: 1000000 1000000 1000000", "1e+18 voxels"),
    "raw taken for gzip": ("encoding: raw", "encoding: gzip", "damaged"),
    "lost voxels": ("encoding", "data file: lost.raw\nencoding", "lost.raw is not there"),
    "list": ("encoding", "data file: LIST\nencoding", "one file"),
    "line skip": ("encoding", "line skip: 3\nencoding", "line skip"),
    "no magic": ("NRRD0004", "NOTHING4", "no NRRD header"),
    "no end": ("\n\n(.|\n)*", "\n", "does not end"),
}


@pytest.mark.parametrize("case", NRRD_FIELDS)
def test_a_wrong_nrrd_header(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    pattern, new, essence = NRRD_FIELDS[case]
    refused(patched(write_scan(tmp_path / "a.nrrd", small_scan(), small_grid()), pattern, new), essence)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("keep", [0.1, 0.6, 0.99])
def test_a_truncated_file(
    tmp_path: Path, suffix: str, compress: bool, keep: float, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(2).integers(-1000, 400, (16, 40, 40)).astype(np.int16)
    path = write_scan(tmp_path / f"a{suffix}", noise, small_grid(shape=(16, 40, 40)), compress)
    cut = path if suffix != ".mhd" else tmp_path / ("a.zraw" if compress else "a.raw")
    data = cut.read_bytes()
    cut.write_bytes(data[: int(len(data) * keep)])
    refused(path, cut.name, "truncated")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_within_its_header(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_scan(tmp_path / f"a{suffix}", small_scan(), small_grid(), compress=True)
    path.write_bytes(path.read_bytes()[:40])
    refused(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("junk", [b"", b"\x00" * 1000, b"hello world\n" * 100, bytes(range(256)) * 8])
def test_junk(tmp_path: Path, suffix: str, junk: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(junk)
    message = refused(path)
    assert junk or "empty" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bytes_never_end_in_another_error(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_scan(tmp_path / f"a{suffix}", small_scan(), small_grid())
    whole = path.read_bytes()
    for seed in range(60):
        random = np.random.default_rng(seed)
        data = bytearray(whole)
        for offset in random.integers(0, min(len(data), 400), 3):
            data[offset] = random.integers(256)
        path.write_bytes(bytes(data))
        outcome = "read"
        try:
            read_volume(path)
        except ScanError as error:
            outcome = str(error)
        assert "\n" not in outcome
        assert str(tmp_path) not in outcome
    assert capfd.readouterr() == ("", "")


def test_damaged_compressed_voxels(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid(), compress=True)
    data = bytearray((tmp_path / "a.zraw").read_bytes())
    data[-3] ^= 0xFF  # within the checksum
    (tmp_path / "a.zraw").write_bytes(bytes(data))
    refused(path, "a.zraw", "damaged")


def test_a_small_file_that_promises_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid(), compress=True)
    refused(patched(path, "DimSize = .*", "DimSize = 1000 1000 2000"), "cannot be in the")


def test_a_bomb_is_not_inflated_beyond_its_header(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid(), compress=True)
    (tmp_path / "a.zraw").write_bytes(zlib.compress(b"\0" * 50_000_000))
    refused(path, "more voxels")


def test_missing_voxel_file(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.mhd", small_scan(), small_grid())
    (tmp_path / "a.raw").unlink()
    refused(path, "a.raw is not there", "put it beside the header")
    (tmp_path / "a.raw").mkdir()
    refused(path, "a.raw is no plain file")


def as_picture(hu: np.ndarray) -> np.ndarray:
    return ((hu.astype(float) + 1024) / 10).astype(np.uint8)


IMPLAUSIBLE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "constant": (lambda hu: np.full_like(hu, -1000), "one value"),
    "picture": (as_picture, "8-bit picture"),
    "offset": (lambda hu: (hu.astype(int) + 1024).astype(np.uint16), "offset"),
    "offset with padding": (lambda hu: np.where(hu == 40, -2000, hu + 1024).astype(np.int16), "no lung"),
    "mask": (lambda hu: (hu > 0).astype(np.uint8), "mask"),
    "normalised": (lambda hu: ((hu + 1024.0) / 4096).astype(np.float32), "normalised"),
    "air alone": (lambda hu: np.minimum(hu, -700) - (hu == 40), "no voxel is tissue"),
    "NaN": (lambda hu: np.where(hu == 40, np.nan, hu).astype(np.float32), "13 voxels with NaN"),
    "infinity": (lambda hu: np.where(hu == 1500, np.inf, hu).astype(np.float64), "1 voxel with NaN or infinity"),
}


@pytest.mark.parametrize("case", IMPLAUSIBLE)
def test_values_that_cannot_be_hounsfield_units(tmp_path: Path, case: str) -> None:
    change, essence = IMPLAUSIBLE[case]
    refused(write_scan(tmp_path / "a.mha", change(small_scan()), small_grid()), essence)


def test_unknown_kinds_and_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    refused(tmp_path / "a.png", "unknown kind of file", ".mhd")
    with pytest.raises(ScanError, match=r"b\.mhd: no such file or folder"):
        read_volume(tmp_path / "b.mhd")


REAL = {
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192": ((133, 512, 512), (0.703125, 0.703125, 2.5)),
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.619372068417051974713149104919": ((261, 512, 512), (0.681641, 0.681641, 1.25)),
    "LCTSC-Test-S1-201": ((117, 512, 512), (0.9765625, 0.9765625, 3.0)),
}


@pytest.mark.parametrize("seriesuid", REAL)
def test_real_scans(data_dir: Path, seriesuid: str) -> None:
    shape, spacing = REAL[seriesuid]
    path = data_dir / "ct" / f"{seriesuid}.mhd"
    volume = read_volume(path)
    assert (volume.hu.shape, volume.grid.shape, volume.seriesuid) == (shape, shape, seriesuid)
    assert volume.grid.spacing_mm == pytest.approx(spacing)
    assert volume.grid == volume.file_grid
    assert volume.notes == ()
    image = SimpleITK.ReadImage(str(path))
    truth = SimpleITK.GetArrayViewFromImage(image)[:: shape[0] // 9]
    np.testing.assert_array_equal(volume.hu[:: shape[0] // 9], np.maximum(truth, -1024))
