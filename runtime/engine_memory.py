"""How much memory an engine takes for a window, measured."""

from caffe_models.errors import Rpn3dError

BYTES = {
    ("openvino", "f32"): (165e6, 66.0),
    ("openvino", "bf16"): (105e6, 42.5),
    ("openvino", "int8"): (105e6, 21.2),
    ("onnxruntime", "f32"): (78e6, 198.0),
    ("torch", "f32"): (91e6, 275.0),
    ("torch", "bf16"): (81e6, 173.0),
}
"""Engine and precision -> bytes that an engine takes: fixed, and for each voxel of the window, input apart.

Peak resident memory of a process, with OpenVINO 2026.4 and two threads, less what it held once the model was loaded;
onnxruntime and torch: before it was loaded, so that their models count twice. openvino runs in two stages (see
`two_stage`). Nine sizes from 64^3 to 320x320x336, without emptiness, on AVX-512: 46 to 87 % of what stands here with
its reserve in int8, 48 to 91 % in bf16, 52 to 88 % in f32; least in the smallest, most in 112^3. onnxruntime: three
sizes up to 192^3. torch: 64^3 and 128^3 alone, one thread; larger windows are extrapolated.
"""

HEAD_BYTES = 1.0
"""For each voxel of the padded volume: 15 float32 and a mask for 64 voxels, kept while windows run, rounded up."""

ENGINE_RESERVE = 0.05
"""Part of an engine's predicted memory kept free on top, for other processors and versions."""


def engine_bytes(voxels: int, precision: str, engine: str = "openvino") -> int:
    """Memory that an engine takes for windows of so many voxels, its input and output included."""
    found = [BYTES.get((engine, kind)) for kind in precision.split("+")]  # "bf16+f32": convolutions of both kinds
    if None in found:
        known = ", ".join(f"{name} {kind}" for name, kind in BYTES)
        raise Rpn3dError(f"the memory of {engine} in {precision} is not known; known: {known}")
    fixed, each = max(entry for entry in found if entry is not None)
    return int((fixed + each * voxels) * (1 + ENGINE_RESERVE))
