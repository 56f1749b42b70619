"""Reading DICOM folders: what is read, and each way in which a folder is no scan."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from scan_files import BRIGHT, SERIES_UID, SHAPE, rotation, small_grid, small_scan, write_dicom

from runtime.errors import ScanError
from runtime.find_scans import ScanSource
from runtime.grid import Grid
from runtime.volume import read_volume

Edit = Callable[[pydicom.Dataset, int], None]


def refused(path: Path, *essences: str) -> str:
    """The message of a folder that must be refused: one line with its name and the essence."""
    with pytest.raises(ScanError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert str(path.parent) not in message
    for essence in essences:
        assert essence in message, message
    return message


def series(tmp_path: Path, edit: Edit | None = None, grid: Grid | None = None, **options: Any) -> Path:
    return write_dicom(tmp_path / "chest", small_scan(), grid or small_grid(), edit=edit, **options)


def shifted(y_mm: float, z_mm: float = 0.0) -> Edit:
    """Moves slice i by i * (0, y, z) mm."""

    def edit(data: pydicom.Dataset, index: int) -> None:
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + y_mm * index, z + z_mm * index]

    return edit


def at(wanted: int, **fields: Any) -> Edit:
    """Sets (or, with None, removes) fields of one slice."""

    def edit(data: pydicom.Dataset, index: int) -> None:
        if index == wanted:
            everywhere(**fields)(data, index)

    return edit


def everywhere(**fields: Any) -> Edit:
    def edit(data: pydicom.Dataset, index: int) -> None:
        for key, value in fields.items():
            if value is None:
                delattr(data, key)
            else:
                setattr(data, key, value)

    return edit


def test_the_oracle_agrees(tmp_path: Path) -> None:
    """GDCM's reader in SimpleITK, on a folder without any trap, gives the same voxels and the same grid."""
    folder = series(tmp_path, grid=small_grid(rotation(1)))
    volume = read_volume(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    np.testing.assert_array_equal(volume.hu, SimpleITK.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.grid.spacing_mm, image.GetSpacing(), atol=1e-4)
    np.testing.assert_allclose(volume.grid.origin_mm, image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(volume.grid.direction, image.GetDirection(), atol=1e-5)


def test_other_files_in_the_folder_are_ignored(tmp_path: Path) -> None:
    folder = series(tmp_path)
    (folder / "readme.txt").write_text("hello")
    (folder / "069.xml").write_text("<LidcReadMessage/>")
    (folder / ".DS_Store").write_bytes(b"\0" * 200)
    (folder / "deeper").mkdir()
    report = pydicom.dcmread(next(folder.glob("IM*")))
    for key in ("Rows", "Columns", "PixelData"):
        delattr(report, key)
    report.Modality = "SR"
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(folder / "report.dcm")
    np.testing.assert_array_equal(read_volume(folder).hu, small_scan())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_uncompressed_syntaxes(tmp_path: Path, syntax: Any) -> None:
    folder = series(tmp_path)
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            data["PixelData"].VR = "OW"
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            path, data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax.is_little_endian
        )
    np.testing.assert_array_equal(read_volume(folder).hu, small_scan())


def test_files_without_preamble(tmp_path: Path) -> None:
    folder = series(tmp_path)
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        bare = pydicom.Dataset(data)
        with path.open("wb") as file:
            pydicom.filewriter.write_dataset(_little(file), bare)
    np.testing.assert_array_equal(read_volume(folder).hu, small_scan())


def _little(file: Any) -> Any:
    writer = pydicom.filebase.DicomIO(file)
    writer.is_little_endian, writer.is_implicit_VR = True, True
    return writer


def test_run_length_compression(tmp_path: Path) -> None:
    folder = series(tmp_path)
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.save_as(path)
    np.testing.assert_array_equal(read_volume(folder).hu, small_scan())


@pytest.mark.parametrize("codec", ["JPEG", "JPEG2000"])
def test_lossless_jpeg_compression(tmp_path: Path, codec: str) -> None:
    hu = np.random.default_rng(4).integers(-1000, 1000, (9, 16, 16)).astype(np.int16)
    folder = write_dicom(tmp_path / "chest", hu, small_grid(shape=(9, 16, 16)))
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(codec)
    for path in sorted(folder.iterdir()):
        original = SimpleITK.ReadImage(str(path), imageIO="GDCMImageIO")
        target = tmp_path / "compressed" / f"{path.name}.dcm"
        target.parent.mkdir(exist_ok=True)
        writer.SetFileName(str(target))
        image = SimpleITK.Cast(original, SimpleITK.sitkInt16)
        for key in original.GetMetaDataKeys():
            image.SetMetaData(key, original.GetMetaData(key))
        writer.Execute(image)
    assert pydicom.dcmread(target).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read_volume(target.parent).hu, hu)


def test_compressed_pixels_that_nobody_can_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path)
    for path in sorted(folder.iterdir()):
        data = pydicom.dcmread(path)
        data.compress(RLELossless)
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
        data.save_as(path)
    refused(folder, "IM0000", "JPEG Lossless", "decompress the scan")
    assert capfd.readouterr() == ("", "")


def test_signed_pixels_fractional_slope_and_padding(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        hu = small_scan()[index].astype(np.int32)
        hu[8, :3] = -2000
        data.PixelRepresentation = 1
        data.RescaleSlope, data.RescaleIntercept = 0.5, 10
        data.PixelData = ((hu - 10) * 2).astype("<i2").tobytes() + b"\0"
        data["PixelData"].VR = "OW"

    expected = small_scan()
    expected[:, 8, :3] = -1024
    np.testing.assert_array_equal(read_volume(series(tmp_path, edit)).hu, expected)


def test_padding_that_would_be_metal_becomes_the_floor(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        stored = (small_scan()[index].astype(np.int32) + 1024).astype("<u2")
        stored[8, :3] = 63536  # -2000 in two's complement
        data.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
        data.add_new("PixelPaddingValue", "US", 63536)

    expected = small_scan()
    expected[:, 8, :3] = -1024
    np.testing.assert_array_equal(read_volume(series(tmp_path, edit)).hu, expected)


def test_bits_beyond_those_stored_are_dropped(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        stored = (small_scan()[index].astype(np.int32) + 1024).astype("<u2")
        stored[::2] |= 0x8000  # an overlay, as old files have
        data.BitsStored, data.HighBit = 12, 11
        data.PixelData = stored.tobytes()

    np.testing.assert_array_equal(read_volume(series(tmp_path, edit)).hu, small_scan())


def test_a_missing_rescale_is_noted(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        del data.RescaleSlope, data.RescaleIntercept
        data.PixelRepresentation = 1
        data.PixelData = small_scan()[index].astype("<i2").tobytes()

    volume = read_volume(series(tmp_path, edit))
    np.testing.assert_array_equal(volume.hu, small_scan())
    assert "RescaleSlope" in volume.notes[0]


def test_localizers_and_other_modalities_are_left_out_with_a_note(tmp_path: Path) -> None:
    folder = series(tmp_path)
    write_dicom(
        folder, small_scan()[:2], small_grid(), series_uid="1.2.9", prefix="SC",
        edit=everywhere(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )  # fmt: skip
    write_dicom(folder, small_scan()[:3], small_grid(), series_uid="1.2.8", prefix="MR", edit=everywhere(Modality="MR"))
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.hu, small_scan())
    assert volume.notes == ("left out images that are no CT slices: 3 x MR, 2 x localizer",)
    assert volume.seriesuid == SERIES_UID


def test_a_localizer_within_the_series(tmp_path: Path) -> None:
    folder = series(tmp_path)
    write_dicom(
        folder, np.zeros((1, 20, 40), np.int16), small_grid(), prefix="SC",
        edit=everywhere(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(folder).hu, small_scan())


def test_two_series_are_named_and_can_be_chosen(tmp_path: Path) -> None:
    folder = series(tmp_path)
    other = small_scan(bright=(6, 3, 3))
    write_dicom(folder, other, small_grid(), series_uid="1.2.7", prefix="B", edit=everywhere(SeriesDescription="Soft"))
    refused(
        folder, "2 series", SERIES_UID, "1.2.7", "9 slices, Soft", "Chest 2.5 lung", "FOLDER#SeriesInstanceUID",
        "chest#1.2.7",
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(f"{folder}#1.2.7").hu, other)
    chosen = read_volume(ScanSource(folder, "dicom", SERIES_UID))
    np.testing.assert_array_equal(chosen.hu, small_scan())
    assert chosen.source == f"{folder}#{SERIES_UID}"
    with pytest.raises(ScanError, match=r"no series 9\.9 found; allowed are .*1\.2\.7"):
        read_volume(f"{folder}#9.9")


@pytest.mark.parametrize("gone", [(4,), (4, 5), (2, 6)])
def test_missing_slices(tmp_path: Path, gone: tuple[int, ...]) -> None:
    hu = np.concatenate([small_scan(), small_scan()])
    folder = write_dicom(tmp_path / "chest", hu, small_grid(shape=hu.shape), leave_out=gone)
    before, after = (f"IM{7 * i % 18:04d}" for i in (gone[0] - 1, gone[1] + 1 if gone == (4, 5) else gone[0] + 1))
    width = 7.5 if gone == (4, 5) else 5.0
    refused(
        folder, f"missing slice{'s'[: len(gone) > 1]}: {len(gone)} of 18", f"{width:.2f} mm", before, after, "2.50 mm"
    )


def test_a_missing_slice_of_an_oblique_series(tmp_path: Path) -> None:
    hu = np.concatenate([small_scan(), small_scan()])
    grid = small_grid(rotation(2), hu.shape)
    refused(write_dicom(tmp_path / "chest", hu, grid, leave_out=(7,)), "missing slice: 1 of 18")


def test_a_duplicate_slice(tmp_path: Path) -> None:
    folder = series(tmp_path)
    (folder / "copy.dcm").write_bytes((folder / "IM0003").read_bytes())
    refused(folder, "duplicate slice", "IM0003", "copy.dcm", "same place")


def test_two_phases_in_one_series(tmp_path: Path) -> None:
    folder = series(tmp_path)
    write_dicom(folder, small_scan(), small_grid(), prefix="P2")
    refused(folder, "duplicate slice", "8 more such pairs")


@pytest.mark.parametrize("degrees", [-20.0, 10.0, 3.0])
def test_gantry_tilt(tmp_path: Path, degrees: float) -> None:
    # the gantry leans about x, so rows stay, columns and the normal lean; the table still moves along z
    tilt = np.radians(degrees)
    lean = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])

    def edit(data: pydicom.Dataset, index: int) -> None:
        data.ImageOrientationPatient = [f"{v:.9f}" for v in (*lean[:, 0], *lean[:, 1])]
        data.GantryDetectorTilt = degrees

    refused(series(tmp_path, edit), f"gantry tilt of {abs(degrees):.1f} degrees", "resample the scan")


def test_a_shear_without_a_stated_tilt(tmp_path: Path) -> None:
    refused(series(tmp_path, shifted(0.5)), "gantry tilt of 11.3 degrees", "4.0 mm in all")


def test_a_tilt_that_only_the_header_states(tmp_path: Path) -> None:
    refused(series(tmp_path, everywhere(GantryDetectorTilt=12.0)), "gantry tilt", "GantryDetectorTilt 12")


def test_no_tilt_is_no_tilt(tmp_path: Path) -> None:
    assert read_volume(series(tmp_path, everywhere(GantryDetectorTilt=0.0))).notes == ()


def test_a_reformatted_oblique_series_may_state_its_tilt(tmp_path: Path) -> None:
    grid = small_grid(rotation(2))
    volume = read_volume(series(tmp_path, everywhere(GantryDetectorTilt=12.0), grid))
    np.testing.assert_allclose(
        volume.grid.to_world(np.unravel_index(int(volume.hu.argmax()), SHAPE)), grid.to_world(BRIGHT), atol=1e-3
    )


def test_one_slice_shifted_sideways(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        shifted(30.0 * (index == 4) / 4)(data, index)

    refused(series(tmp_path, edit), "IM0001", "shifted sideways by 30.0 mm")


def test_uneven_distances(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        shifted(0, 0.1 * index)(data, index)

    refused(series(tmp_path, edit), "uneven slice distances: 2.60 to 4.00 mm")


def test_positions_rounded_to_a_tenth_are_fine(tmp_path: Path) -> None:
    def edit(data: pydicom.Dataset, index: int) -> None:
        data.ImagePositionPatient = [-31.5, 12.2, round(-140 + 1.25 * index, 1)]

    assert read_volume(series(tmp_path, edit)).grid.spacing_mm[2] == pytest.approx(1.25, abs=0.01)


FIELDS: dict[str, tuple[Edit, str]] = {
    "two sizes": (at(3, Rows=13, Columns=11), "Rows x Columns is (11, 13)"),
    "two orientations": (at(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), "ImageOrientationPatient"),
    "two spacings": (at(3, PixelSpacing=[0.9, 0.9]), "PixelSpacing"),
    "no position": (at(3, ImagePositionPatient=None), "IM0003 and 0 more of 9 files have no ImagePositionPatient"),
    "no orientation": (everywhere(ImageOrientationPatient=None), "have no ImageOrientationPatient"),
    "no pixel spacing": (everywhere(PixelSpacing=None), "have no PixelSpacing"),
    "zero spacing": (everywhere(PixelSpacing=[0, 0.7]), "0.1 to 20 mm"),
    "absurd spacing": (everywhere(PixelSpacing=[70, 70]), "0.1 to 20 mm"),
    "sheared axes": (everywhere(ImageOrientationPatient=[1, 0, 0, 0.3, 1, 0]), "at right angles"),
    "null axes": (everywhere(ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), "at right angles"),
    "short axes": (everywhere(ImageOrientationPatient=[0.5, 0, 0, 0, 1, 0]), "at right angles"),
    "no CT": (everywhere(Modality="MR"), "no CT slices found, only 9 x MR"),
    "localizers alone": (everywhere(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "only 9 x localizer"),
    "colour": (everywhere(SamplesPerPixel=3), "3 samples"),
    "zero slope": (at(2, RescaleSlope=0), "RescaleSlope is 0"),
    "32 bits": (everywhere(BitsAllocated=32), "32 bits"),
    "odd bits": (everywhere(BitsStored=20), "BitsStored is 20"),
    "enhanced": (everywhere(NumberOfFrames=30), "holds 30 frames"),
    "no series": (everywhere(SeriesInstanceUID=""), "SeriesInstanceUID"),
    "no pixels": (at(4, PixelData=b""), "truncated: found 0 bytes"),
    "few pixels": (at(4, PixelData=b"\0" * 100), "IM0001 is truncated: found 100 bytes"),
    "a picture": (everywhere(RescaleIntercept=0), "cannot be the Hounsfield units"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_wrong_headers(tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    edit, essence = FIELDS[case]
    refused(series(tmp_path, edit), essence)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_series_uid_that_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    refused(series(tmp_path, everywhere(SeriesInstanceUID="../../x")), "SeriesInstanceUID is '../../x'")


@pytest.mark.parametrize("field", ["ImagePositionPatient", "PixelSpacing", "RescaleSlope"])
def test_numbers_that_are_none(tmp_path: Path, field: str, capfd: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path)
    path = folder / "IM0003"
    raw = path.read_bytes()
    tag = pydicom.datadict.tag_for_keyword(field) or 0
    start = raw.index((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + b"DS") + 8
    path.write_bytes(raw[:start] + b"x" + raw[start + 1 :])
    refused(folder, "IM0003", field)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("keep", [132, 200, 300, 600, -200, -1])
@pytest.mark.parametrize("name", ["IM0000", "IM0003"])
def test_a_truncated_slice(tmp_path: Path, name: str, keep: int, capfd: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path)  # IM0000 is the lowest slice, whose loss would leave a regular stack
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep > 0 else len(data) + keep - len(data) % 2])
    refused(folder, name, "truncated")
    assert capfd.readouterr() == ("", "")


def test_an_empty_file_is_noted_and_refused_if_its_name_says_dicom(tmp_path: Path) -> None:
    folder = series(tmp_path)
    (folder / "IM0099").touch()
    assert read_volume(folder).notes == ("ignored empty files: 1",)
    (folder / "IM0100.dcm").touch()
    refused(folder, "IM0100.dcm is no DICOM file")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_end_in_another_error(tmp_path: Path, seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path)
    path = folder / "IM0003"
    random = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for offset in random.integers(0, len(data) - 2 * SHAPE[1] * SHAPE[2], 4):
        data[offset] = random.integers(256)
    path.write_bytes(bytes(data))
    outcome = "read"
    try:
        read_volume(folder)
    except ScanError as error:
        outcome = str(error)
    assert "\n" not in outcome
    assert str(tmp_path) not in outcome
    assert capfd.readouterr() == ("", "")


def test_few_slices(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "chest", small_scan()[:3], small_grid())
    refused(folder, "3 CT slices found; allowed are at least 8")


def test_messages_say_what_to_do(tmp_path: Path) -> None:
    """Whatever is refused ends with an advice after the last semicolon."""
    for number, (edit, _) in enumerate([*FIELDS.values(), (shifted(0.5), "")]):
        with pytest.raises(ScanError) as caught:
            read_volume(series(tmp_path / str(number), edit))
        assert re.search(r"allowed|copy|export|give|decompress", str(caught.value)), str(caught.value)
