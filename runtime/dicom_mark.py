"""How a DICOM file is told from others, without the library that reads it: looking for scans must be quick."""

from pathlib import Path


def looks_like_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark, or, without it, starts with a group 0008 as old files do."""
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:132] == b"DICM" or (
        head[:2] == b"\x08\x00" and head[2:4] in (b"\x00\x00", b"\x05\x00", b"\x08\x00")
    )
