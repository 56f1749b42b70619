"""int8 by post-training quantisation (NNCF): activations calibrated on samples, weights per channel.

The weights use half the range of int8 (NNCF's overflow fix, in every layer): AVX2 adds pairs of products in 16 bits
and would saturate, so one file serves every processor. The first and the last convolution stay in float32 (where there
are more than four), and an activation's range is the largest seen in any sample, not the mean over samples: what a
detector looks for is rare, and its large activations would be cut off.

BatchNorm is folded into the convolutions first, and the mean error that rounding adds to a channel is taken back layer
by layer, each measured behind the layers corrected before it (NNCF's slower bias correction). What each is worth is in
the model card.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caffe_models.errors import NetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from convert.run_net import Arrays


KEEP_ENDS = 4
"""Nets of more convolutions than this keep the first and the last one in float32."""


@dataclass(frozen=True)
class Calibration:
    """What activations are measured on.

    Attributes:
        samples: input arrays by blob, one dictionary for each forward pass.
        source: what they are, for the model's notes.
        keep: quantise on so many of them only: half are those of the highest `score`, the others are spread evenly
            over the rest. None: on all.
        score: how much of what the net looks for is in a sample, from the net's first output (as it stands, with the
            batch axis). Ranges measured on crops that hold nothing would cut off the activations of what is rare.
    """

    samples: "Sequence[Arrays]"
    source: str
    keep: int | None = None
    score: "Callable[[NDArray[np.float32]], float] | None" = None


def quantise(model: Any, calibration: Calibration) -> Any:
    """An OpenVINO model with its convolutions in int8; weights are stored as int8.

    Raises:
        NetError: no samples, or samples that do not fit the model's inputs.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    inputs = {port.any_name for port in model.inputs}
    if not calibration.samples:
        raise NetError("int8 needs calibration samples; give --calibration scans (or .npz files of inputs)")
    for sample in calibration.samples:
        if set(sample) != inputs:
            raise NetError(
                f"calibration on {calibration.source}: arrays {', '.join(sorted(sample))}; "
                f"the net's inputs are {', '.join(sorted(inputs))}"
            )
    _fold(model)
    samples = _chosen(model, calibration)
    nncf.set_log_level("ERROR")
    names = [op.get_friendly_name() for op in model.get_ordered_ops() if "Convolution" in op.get_type_name()]
    with redirect_stdout(sys.stderr):  # NNCF's progress, which an ASCII output could not even hold
        found = nncf.quantize(
            model,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            fast_bias_correction=False,
            ignored_scope=nncf.IgnoredScope(names=[names[0], names[-1]]) if len(names) > KEEP_ENDS else None,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE, activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    for key, text in {"calibration": calibration.source, "nncf": nncf.__version__}.items():
        found.set_rt_info(text, ["rpn3d", key])
    return found


def _fold(model: Any) -> None:
    """Multiply each BatchNorm into the convolution before it, as the compiler will.

    Otherwise NNCF quantises between the two, all channels with one step, where they may differ a thousandfold
    (BatchNorm is there to even them out), and skips its bias correction. `openvino.read_model` does not fold what it
    reads from ONNX (OpenVINO, pull request 15682); `openvino.convert_model` does, by this very function.
    """
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=False)


def _chosen(model: Any, calibration: Calibration) -> "Sequence[Arrays]":
    """The samples to quantise on."""
    import openvino

    samples, keep, score = calibration.samples, calibration.keep, calibration.score
    if keep is None or score is None or keep >= len(samples):
        return samples
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = [score(compiled(sample)[0]) for sample in samples]
    order = sorted(range(len(samples)), key=lambda k: -values[k])
    high, rest = order[: keep // 2], sorted(order[keep // 2 :])
    others = keep - len(high)
    return [samples[k] for k in (*high, *(rest[n * len(rest) // others] for n in range(others)))]
