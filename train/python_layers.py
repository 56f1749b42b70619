"""The Python layers of rpn3d's train nets: crops in, targets beside the head, hard negatives into the losses.

They are entries of Caffe's Python layer registry under the module name `rpn3d`; import this module before a train net
is read. Random choices draw from PyTorch's generator, which the solver seeds anew in every iteration.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from caffe_models.errors import NetError
from caffe_models.layer import Layer, LayerSpec, Shape
from caffe_models.layers.python import PythonLayer, register_python
from caffe_models.net import Net
from caffe_models.rpn.anchors import ANCHORS_VOXEL, STRIDE, VALUES_PER_ANCHOR
from caffe_models.rpn.targets import IGNORED, NEGATIVE, POSITIVE, TargetRule, anchor_targets

if TYPE_CHECKING:
    import torch

LEAST_WRONG = 1e-6
"""Keeps the weights of samples that are all right from vanishing together."""


@dataclass(frozen=True)
class CropBatch:
    """One batch of crops.

    Attributes:
        data: (n, 1, z, y, x) float32, as the network sees it: (grey level - 128) / 128.
        coord: (n, 3, z/4, y/4, x/4) float32, place of each output cell in the lungs.
        nodules: (n, k, 5) float32: z, y, x, diameter in voxels of the crop, kind (1 target, 0 ignore, -1 padding).
        mining: (n,) float32: 1 where hard negatives may be chosen by logit, 0 where the scan is not fully annotated
            and a strong response may be a nodule that nobody marked.
    """

    data: NDArray[np.float32]
    coord: NDArray[np.float32]
    nodules: NDArray[np.float32]
    mining: NDArray[np.float32]


Source = Callable[[], CropBatch] | Iterator[CropBatch]


def _settings(param: Mapping[str, Any], spec: LayerSpec, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`param` over `defaults`. Raises PrototxtError for unknown names and for values that are not above 0."""
    line = spec.param("python_param").line
    for name, value in param.items():
        if name not in defaults:
            raise spec.error(f'param_str has "{name}" (allowed: {", ".join(defaults)})', line)
        values = value if isinstance(value, list) and isinstance(defaults[name], list) else [value]
        whole = isinstance(defaults[name], int)
        for one in values:
            if isinstance(one, bool) or not isinstance(one, int if whole else int | float) or not one > 0:
                kind = "a whole number" if whole else "a number"
                raise spec.error(f'param_str: "{name}" is {one!r}; allowed: {kind} above 0', line)
    return {**defaults, **param}


@register_python("rpn3d", "crops")
class Crops(PythonLayer):
    """No bottoms; tops data, coord, nodules, mining: the next batch of the source given by `set_source`."""

    def __init__(self, param: Mapping[str, Any], spec: LayerSpec) -> None:
        super().__init__(param, spec)
        self.settings = _settings(param, spec, {"batch": 1, "crop": 128, "max_nodules": 12})
        self.source: Source | None = None
        self.device = "cpu"
        if self.settings["crop"] % 16:
            raise spec.error(f'param_str: "crop" is {self.settings["crop"]}; allowed: multiples of 16')

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        batch, crop = self.settings["batch"], self.settings["crop"]
        cells = crop // STRIDE
        return [
            (batch, 1, crop, crop, crop),
            (batch, 3, cells, cells, cells),
            (batch, self.settings["max_nodules"], 5),
            (batch,),
        ]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        if self.source is None:
            raise NetError(
                f'{self.spec.source}:{self.spec.line}: layer "{self.spec.name}": has no source of crops; '
                "call train.python_layers.set_source(net, source) before forward"
            )
        batch = self.source() if callable(self.source) else next(self.source)
        tops = []
        arrays = {"data": batch.data, "coord": batch.coord, "nodules": batch.nodules, "mining": batch.mining}
        for (name, array), wanted in zip(arrays.items(), self.infer_shapes([]), strict=True):
            if array.shape != wanted:
                raise NetError(
                    f'{self.spec.source}:{self.spec.line}: layer "{self.spec.name}": the source gives {name} of shape '
                    f"{array.shape}; param_str asks for {wanted}"
                )
            top = torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)
            # Channels-last all through: one contiguous bottom of a Concat would turn its neighbours into contiguous
            # ones. `to`, not `contiguous`, which leaves the strides of a single channel as they are, and by those
            # PyTorch chooses the layout of everything that follows.
            tops.append(top.to(memory_format=torch.channels_last_3d) if top.ndim == 5 else top)
        return tops


def set_source(layer: Net | Layer | Crops, source: Source, device: str = "cpu") -> None:
    """Let the `crops` layer draw its batches from `source`, a callable without arguments or an iterator.

    Args:
        layer: a train net, its layer `crops`, or what that layer holds.
        device: where the net's weights are.

    Raises:
        NetError: there is no `crops` layer in it.
    """
    layers: Sequence[object] = layer.layers if isinstance(layer, Net) else [layer]
    held = [getattr(one, "implementation", one) for one in layers]
    found = [one for one in held if isinstance(one, Crops)]
    if not found:
        name = layer.name if isinstance(layer, Net) else layer.spec.name
        raise NetError(f'"{name}" has no Python layer "crops" of module "rpn3d", nothing to give crops to')
    for one in found:
        one.source, one.device = source, device


@register_python("rpn3d", "targets")
class Targets(PythonLayer):
    """Bottoms nodules (n, k, 5) and head (of which the shape counts); top: labels and deltas in the head's layout."""

    def __init__(self, param: Mapping[str, Any], spec: LayerSpec) -> None:
        super().__init__(param, spec)
        rule = TargetRule()
        defaults = {
            "anchors": list(ANCHORS_VOXEL),
            "positive_iou": rule.positive_iou,
            "negative_iou": rule.negative_iou,
            "positives_per_nodule": rule.positives_per_nodule,
        }
        settings = _settings(param, spec, defaults)
        self.rule = TargetRule(**{**settings, "anchors": tuple(float(edge) for edge in settings["anchors"])})

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        nodules, head = _bottoms(self.spec, bottoms, 2)
        channels = VALUES_PER_ANCHOR * len(self.rule.anchors)
        if len(head) != 5 or head[1] != channels or len(nodules) != 3 or nodules[0] != head[0] or nodules[2] != 5:
            raise self.spec.error(
                f"bottoms of shapes {nodules} and {head}; allowed: (n, k, 5) and (n, {channels}, z, y, x)"
            )
        return [head]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch

        depth, height, width = tensors[1].shape[2:]
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        nodules = tensors[0] if self.share is None else self.share.gather(tensors[0])  # all draw alike, for all crops
        rows = nodules.detach().cpu().numpy()
        made = [anchor_targets(one, (depth, height, width), self.rule, rng) for one in rows]
        target = torch.from_numpy(np.stack(made)).to(tensors[1].device)
        return [target if self.share is None else self.share.own(target)]


@register_python("rpn3d", "hard_negatives")
class HardNegatives(PythonLayer):
    """Chooses what enters the losses; the tops have fixed sizes and are filled up with label -1 and weight 0.

    Bottoms: head (n, anchors, 5, cells), target of the same shape, mining (n). Of each crop up to `pool` negatives are
    drawn at random. Those of all mining crops compete by logit for `num_hard` places per crop; a crop that must not
    be mined gives `num_hard` of its own as drawn.

    Tops: pos_logit, pos_label (p, 1); neg_logit, neg_label (q, 1); delta, its target, inside and outside weights
    (p, 4); p = n * max_positives, q = n * num_hard. SmoothL1Loss divides by p, so the outside weight is p over the
    number of positives.

    Where several processes share the batch, the tops are those of all crops in each of them, and so are the losses.
    """

    def __init__(self, param: Mapping[str, Any], spec: LayerSpec) -> None:
        super().__init__(param, spec)
        self.settings = _settings(param, spec, {"num_hard": 5, "pool": 800, "max_positives": 12})

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        head, target, mining = _bottoms(self.spec, bottoms, 3)
        if len(head) != 4 or head[2] != VALUES_PER_ANCHOR or target != head or mining != head[:1]:
            raise self.spec.error(
                f"bottoms of shapes {head}, {target}, {mining}; allowed: (n, anchors, 5, cells), the same, and (n,)"
            )
        positives, negatives = self._places(head[0])
        deltas = (positives, VALUES_PER_ANCHOR - 1)
        return [(positives, 1), (positives, 1), (negatives, 1), (negatives, 1), deltas, deltas, deltas, deltas]

    def _places(self, crops: int) -> tuple[int, int]:
        return crops * self.settings["max_positives"], crops * self.settings["num_hard"]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch
        from torch.nn import functional as F

        head, target, mining = tensors if self.share is None else map(self.share.gather, tensors)
        positives, negatives = self._places(head.shape[0])
        labels = target[:, :, 0]
        logits = head[:, :, 0]
        chosen = torch.nonzero(labels == POSITIVE)
        if len(chosen) > positives:
            chosen = chosen[torch.randperm(len(chosen))[:positives]]
        crop, anchor, cell = chosen.unbind(1)
        count = len(chosen)
        found = logits[crop, anchor, cell].float()
        deltas = head[crop, anchor, 1:, cell].float()
        wanted = target[crop, anchor, 1:, cell]
        background = self._negatives(logits.detach(), labels, mining)
        rejected = logits.reshape(-1)[background].float()
        weight = head.new_zeros((positives, VALUES_PER_ANCHOR - 1), dtype=torch.float32)
        weight[:count] = 1.0
        labelled = weight.new_ones(max(count, len(background)))
        return [
            F.pad(found, (0, positives - count))[:, None],
            F.pad(labelled[:count] * POSITIVE, (0, positives - count), value=IGNORED)[:, None],
            F.pad(rejected, (0, negatives - len(background)))[:, None],
            F.pad(labelled[: len(background)] * NEGATIVE, (0, negatives - len(background)), value=IGNORED)[:, None],
            F.pad(deltas, (0, 0, 0, positives - count)),
            F.pad(wanted, (0, 0, 0, positives - count)),
            weight,
            weight * (positives / max(count, 1)),
        ]

    def _negatives(self, logits: "torch.Tensor", labels: "torch.Tensor", mining: "torch.Tensor") -> "torch.Tensor":
        """Flat indices into (n, anchors, cells) of the negatives that enter the loss."""
        import torch

        size = labels[0].numel()
        pools: list[torch.Tensor] = []
        plain: list[torch.Tensor] = []
        for index in range(len(labels)):
            free = torch.nonzero(labels[index].reshape(-1) == NEGATIVE)[:, 0]
            drawn = free[torch.randperm(len(free))[: self.settings["pool"]]] + index * size
            if mining[index] > 0.5:
                pools.append(drawn)
            else:
                plain.append(drawn[: self.settings["num_hard"]])
        if pools:
            pool = torch.cat(pools)
            wanted = min(len(pools) * self.settings["num_hard"], len(pool))
            plain.append(pool[torch.topk(logits.reshape(-1)[pool].float(), wanted).indices])
        return torch.cat(plain)


@register_python("rpn3d", "weighted_loss")
class WeightedLoss(PythonLayer):
    """Cross entropy in which a sample counts the more, the more wrong it is: what the last level of mining trains with.

    Bottoms: logit (n, 1), label of the same shape, 1 or 0, or -1 for a place that is filled up. Top: the scalar

        sum(w_i l_i) / sum(w_i),  w_i = |label_i - sigmoid(logit_i)|^gamma

    with l_i the cross entropy; the weights take part as numbers, without a gradient of their own. It differs from the
    focal loss (Lin et al. 2017) in that it is divided by the weights' sum instead of the number of samples, so that the
    two classification parts keep their size against each other and against the regression. 0 where nothing is labelled.
    """

    def __init__(self, param: Mapping[str, Any], spec: LayerSpec) -> None:
        super().__init__(param, spec)
        self.settings = _settings(param, spec, {"gamma": 1.0})

    def infer_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        logit, label = _bottoms(self.spec, bottoms, 2)
        if logit != label:
            raise self.spec.error(f"bottoms of shapes {logit} and {label}; allowed: two of one shape")
        return [()]

    def forward(self, tensors: Sequence["torch.Tensor"]) -> list["torch.Tensor"]:
        import torch
        from torch.nn import functional as F

        logit, label = tensors[0].float(), tensors[1]
        counted = (label != IGNORED).float()
        wrong = (label - torch.sigmoid(logit.detach())).abs()
        weight = counted * wrong.clamp_min(LEAST_WRONG) ** self.settings["gamma"]
        loss = F.binary_cross_entropy_with_logits(logit, label * counted, reduction="none")
        return [(weight * loss).sum() / weight.sum().clamp_min(LEAST_WRONG)]


def _bottoms(spec: LayerSpec, bottoms: Sequence[Shape], count: int) -> Sequence[Shape]:
    if len(bottoms) != count:
        raise spec.error(f"has {len(bottoms)} bottom(s), allowed: {count}")
    return bottoms
