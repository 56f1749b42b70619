"""Synthetic chest CTs with nodules whose place and size are known: make them, write them as LUNA16 has its scans."""

from train.phantom_files import PhantomError, annotation_rows, write_annotations, write_phantom, write_phantoms
from train.phantom_make import Phantom, make_phantom, seriesuid
from train.phantom_nodules import PhantomNodule

__all__ = [
    "Phantom",
    "PhantomError",
    "PhantomNodule",
    "annotation_rows",
    "make_phantom",
    "seriesuid",
    "write_annotations",
    "write_phantom",
    "write_phantoms",
]
