"""BatchNorm: Caffe's three blobs, and the four or five of the MKL2017 and MKLDNN engines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from caffe_models import folded_batch_norm
from caffe_models.errors import warn
from caffe_models.fillers import FillerSpec
from caffe_models.layer import BlobSpec, Layer, LayerSpec, OnnxGraph, Shape, int64, knows, register

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BatchNormParams:
    """Caffe's BatchNormParameter; `gamma` and `beta` exist with the MKL engines only."""

    use_global_stats: bool
    moving_average_fraction: float
    eps: float
    gamma: bool
    beta: bool
    gamma_filler: FillerSpec
    beta_filler: FillerSpec

    @staticmethod
    def read(spec: LayerSpec) -> "BatchNormParams":
        """From `batch_norm_param` and the layer's engine, which decides how many blobs there are."""
        message = spec.param("batch_norm_param")
        engine = spec.engine or (str(message.get("engine")) if knows(message, "engine") else "")
        mkl = engine.upper().startswith("MKL")
        gamma = mkl and bool(message.get("use_weight_bias"))
        if knows(message, "relu") and message.get("relu"):
            raise spec.error(
                "relu: true is what Intel Caffe writes when it fuses a ReLU in; remove it and put a ReLU layer behind",
                message.line_of("relu"),
            )
        given = message.has("use_global_stats") and not (mkl and spec.phase == "TEST")  # MKL: global in TEST, always
        return BatchNormParams(
            use_global_stats=bool(message.get("use_global_stats")) if given else spec.phase == "TEST",
            moving_average_fraction=float(message.get("moving_average_fraction")),
            eps=float(message.get("eps")),
            gamma=gamma,
            beta=gamma and bool(message.get("bias_term")),
            gamma_filler=FillerSpec.read(message, "filler", FillerSpec(value=1.0)) if gamma else FillerSpec(),
            beta_filler=FillerSpec.read(message, "bias_filler") if gamma else FillerSpec(),
        )


@register("BatchNorm")
class BatchNorm(Layer):
    """y = (x - m) / sqrt(v + eps) [* gamma + beta] per channel (axis 1).

    Blobs: mean (C), var (C), factor (1), then gamma (C), beta (C). The effective statistics are mean / factor and
    var / factor (0 where the factor is 0). With batch statistics every forward pass does factor = factor * f + 1,
    mean = mean * f + batch mean, var = var * f + unbiased batch variance (f = moving_average_fraction).
    """

    fresh_tops = True
    statistics = frozenset({0, 1, 2})

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__(spec)
        self.params = BatchNormParams.read(spec)
        entries = spec.message.get("param")
        wrong = [entry for entry in entries[:3] if entry.get("lr_mult") != 0]
        if spec.dialect == "bvlc" and wrong and len(entries) != 3:  # BVLC drops exactly three, whatever they say
            raise spec.error(f"param with lr_mult {wrong[0].get('lr_mult'):g}; statistics need 0", wrong[0].line)
        if wrong:
            what = "bvlc takes it as 0" if spec.dialect == "bvlc" else "they are measured, not learnt, and would decay"
            text = f"param with lr_mult {wrong[0].get('lr_mult'):g} for statistics: {what}; write lr_mult: 0"
            warn(str(spec.error(text, wrong[0].line)))

    def hint_for_blobs(self, count: int) -> str:
        if count in (4, 5) and len(self.held_blobs) == 3:
            return 'a BatchNorm of an MKL engine with gamma and beta; add engine: "MKL2017" to the layer'
        if count == 3:
            return "a BatchNorm without gamma and beta; remove the layer's engine"
        return super().hint_for_blobs(count)

    def multipliers(self, index: int) -> tuple[float, float]:
        """BVLC never learns or decays the statistics; the other dialects do what the prototxt says."""
        return (0.0, 0.0) if self.spec.dialect == "bvlc" and index < 3 else super().multipliers(index)

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        return [bottoms[0]]

    def blob_specs(self, bottoms: Sequence[Shape]) -> list[BlobSpec]:
        channels = bottoms[0][1] if len(bottoms[0]) > 1 else 1
        shapes: list[Shape] = [(channels,), (channels,), (1,)]
        wanted = [FillerSpec()] * 3
        if self.params.gamma:
            wanted.append(self.params.gamma_filler)
        if self.params.beta:
            wanted.append(self.params.beta_filler)
        shapes += [(channels,)] * (len(wanted) - 3)
        return [BlobSpec(s, f, *self.multipliers(i)) for i, (s, f) in enumerate(zip(shapes, wanted, strict=True))]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        x = tensors[0] if tensors[0].ndim > 1 else tensors[0][:, None]
        mean, var, factor = self.blobs[:3]
        gamma = self.blobs[3] if self.params.gamma else None
        beta = self.blobs[4] if self.params.beta else None
        if self.params.use_global_stats:
            with torch.no_grad():
                divisor = float(factor)
                scale = 1.0 / divisor if divisor else 0.0
                m, v = mean * scale, var * scale
            y = torch.batch_norm(x, gamma, beta, m, v, False, 0.0, self.params.eps, False)
        elif self.share is not None:
            y, batch_mean, batch_var = self.share.batch_norm(x, gamma, beta, self.params.eps)
            self._measure(batch_mean, batch_var)
        elif (fold := folded_batch_norm.rows_to_fold(x)) > 1:
            y, batch_mean, batch_var = folded_batch_norm.batch_norm(x, gamma, beta, self.params.eps, fold)
            self._measure(batch_mean, batch_var)
        else:
            # momentum 1 makes torch hand out the batch's mean and unbiased variance, which is what Caffe accumulates;
            # it still adds 0 times what was there before, so that memory nobody wrote could make the mean NaN
            batch_mean, batch_var = torch.zeros_like(mean), torch.zeros_like(var)
            y = torch.batch_norm(x, gamma, beta, batch_mean, batch_var, True, 1.0, self.params.eps, False)
            if x.numel() == x.shape[1]:  # one value per channel: no unbiased variance, Caffe takes the biased 0
                batch_var.zero_()
            self._measure(batch_mean, batch_var)
        return [y if tensors[0].ndim > 1 else y[:, 0]]

    def _measure(self, batch_mean: "torch.Tensor", batch_var: "torch.Tensor") -> None:
        import torch

        mean, var, factor = self.blobs[:3]
        keep = self.params.moving_average_fraction
        with torch.no_grad():
            mean.mul_(keep).add_(batch_mean)
            var.mul_(keep).add_(batch_var)
            factor.mul_(keep).add_(1.0)

    def to_onnx(self, graph: OnnxGraph, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        name = self.spec.name
        mean, var, factor = (self.array(index) for index in range(3))
        scale = np.float32(0 if factor[0] == 0 else 1 / factor[0])
        gamma = self.array(3) if self.params.gamma else np.ones_like(mean)
        beta = self.array(4) if self.params.beta else np.zeros_like(mean)
        rank = graph.rank(bottoms[0])
        if self.params.use_global_stats and rank > 1:
            blobs = {"gamma": gamma, "beta": beta, "mean": mean * scale, "var": var * scale}
            inputs = [graph.constant(blob, f"{name}_{key}") for key, blob in blobs.items()]
            graph.node("BatchNormalization", [bottoms[0], *inputs], tops, epsilon=self.params.eps)
            return
        column = (1, -1, *[1] * (rank - 2)) if rank > 1 else (-1,)
        if self.params.use_global_stats:
            centre = graph.constant((mean * scale).reshape(column), f"{name}_mean")
            spread = graph.constant((var * scale).reshape(column), f"{name}_var")
        else:
            axes = graph.constant(int64(*(axis for axis in range(rank) if axis != 1)), f"{name}_axes")
            centre = graph.fresh(f"{name}_mean")
            graph.node("ReduceMean", [bottoms[0], axes], [centre], keepdims=1)
        difference = graph.fresh(f"{name}_difference")
        graph.node("Sub", [bottoms[0], centre], [difference])
        if not self.params.use_global_stats:
            square, spread = graph.fresh(f"{name}_square"), graph.fresh(f"{name}_var")
            graph.node("Mul", [difference, difference], [square])
            graph.node("ReduceMean", [square, axes], [spread], keepdims=1)
        eps = graph.constant(np.array(self.params.eps, np.float32), f"{name}_eps")
        shifted, root, unit, scaled = (graph.fresh(f"{name}_{part}") for part in ("shifted", "root", "unit", "scaled"))
        graph.node("Add", [spread, eps], [shifted])
        graph.node("Sqrt", [shifted], [root])
        graph.node("Div", [difference, root], [unit])
        graph.node("Mul", [unit, graph.constant(gamma.reshape(column), f"{name}_gamma")], [scaled])
        graph.node("Add", [scaled, graph.constant(beta.reshape(column), f"{name}_beta")], tops)
