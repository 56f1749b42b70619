"""Writes prototxt/rpn3d: the nets and solvers of the detector. `python -m caffe_models.generators.rpn3d [FOLDER]`.

The texts are what counts and what everything reads; this only keeps 151 layers times three crop sizes consistent. The
train files differ in the settings of the layers `crops` and `hard_negatives` alone, but for the last level's: its
losses are weighted, and BatchNorm's statistics stay what they are. Weights pass from file to file by layer name.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caffe_models.atomic import replacing
from caffe_models.generators.rpn3d_net import NetText
from caffe_models.rpn.anchors import ANCHORS_VOXEL, STRIDE, VALUES_PER_ANCHOR

FOLDER = Path(__file__).resolve().parents[2] / "prototxt" / "rpn3d"
MAX_NODULES = 12
DEPLOY_VOXELS = 128


@dataclass(frozen=True)
class Stage:
    """One step of training, from the weights of the one before: its solver is `solver_<name>.prototxt`.

    The first level of hard mining is the crop schedule, 32, 64 and 128. Levels 2 and 3 draw from what the model before
    got wrong, with a learning rate that falls to nothing ("poly"), since they only refine; level 3 has the weighted
    loss, and BatchNorm's statistics of level 2, as those of a Faster R-CNN on a residual net are fixed when it is
    fine-tuned (He et al. 2016, appendix A): in 40 iterations of crop 128 the weights moved by at most 1.1 %, the
    statistics by up to .28 standard deviations.

    The team's base_lr is 0.01. Memory and time shrink the batch as the crop grows, and base_lr with it (linear scaling,
    Goyal et al. 2017): at crop 64 in batches of 4, 0.01 took the losses from 0.31 back to 0.5, and left them there.

    The first one is `easy`: its hard negatives are the likeliest 5 of 20 drawn in each crop, and not of 800. From the
    fillers, against the likeliest 80 of 12,800 that look like nodules to a net that knows nothing, 500 iterations left
    the losses of positives and negatives at a coin's 0.69 and 0.65; against those of 320, 300 took them to 0.35 and
    0.28.
    """

    name: str
    crop: int
    batch: int
    base_lr: float
    max_iter: int
    stepsize: int | None
    weighted: bool = False
    frozen: bool = False
    easy: bool = False
    snapshot: int = 100

    @property
    def net(self) -> str:
        """Name of its train net's file."""
        return f"train_{self.crop}{'_weighted' * self.weighted}.prototxt"


STAGES = (
    Stage("32", 32, 16, 0.01, 2800, 2400, easy=True),
    Stage("64", 64, 4, 0.0025, 1200, 900),
    Stage("128", 128, 1, 0.0006, 2000, 1400),
    Stage("level2", 64, 4, 0.0025, 1200, None),
    Stage("level3", 128, 1, 0.0006, 1000, None, weighted=True, frozen=True),
)


EASY_POOL = 20
"""Negatives drawn in each crop of an easy stage."""

# Weight decay: 1e-4, of the DSB2017 ancestor, not the team's 1e-6. With momentum 0.9 a weight loses 10 base_lr decay
# of itself an iteration: in 3000 iterations 3 % against 0.03 %, which is none. With few real nodules some is due.
WEIGHT_DECAY = 1e-4
AVERAGE = 0.98
"""BatchNorm's statistics are means over some 50 batches. With the original's 0.9 they are of some 10, which are 40
crops of 64 voxels: measured anew over 240, with nothing else changed, those of a model of level 6 gave CPM .805
instead of .793 on ten synthetic CTs. A larger fraction lags behind the weights; that ends as the learning rate falls.
"""
POLY = 'lr_policy: "poly"\npower: 1'

_NOTE = "Written by caffe_models/generators/rpn3d.py; change it there and run it again."


def train_net(
    crop: int,
    batch: int,
    weighted: bool = False,
    *,
    frozen: bool = False,
    easy: bool = False,
    dropout: bool = True,
    anchors: Sequence[float] = ANCHORS_VOXEL,
) -> str:
    """The 151 layers of training: crops, net, targets, hard negatives, three losses.

    Args:
        weighted: the classification losses weigh each anchor by how wrong the net is about it.
        frozen: BatchNorm normalises by the statistics that the weights bring, and leaves them as they are.
        easy: hard negatives are chosen from few.
        dropout, anchors: other than ours for comparison, see `bench.convergence`.
    """
    net = NetText("rpn3d", _NOTE, average=AVERAGE, frozen=frozen)
    crops = {"batch": batch, "crop": crop, "max_nodules": MAX_NODULES}
    net.python("crops", [], ["data", "coord", "nodules", "mining"], crops)
    net.body("data", "coord", dropout=dropout)
    rule = {"anchors": list(anchors), "positive_iou": 0.5, "negative_iou": 0.02, "positives_per_nodule": 1}
    net.python("targets", ["nodules", "head"], ["target"], rule)
    dims = (0, len(anchors), VALUES_PER_ANCHOR, -1)
    by_anchor = [net.reshape("head_anchors", "head", dims), net.reshape("target_anchors", "target", dims)]
    tops = [
        "pos_logit",
        "pos_label",
        "neg_logit",
        "neg_label",
        "delta",
        "delta_target",
        "delta_inside",
        "delta_outside",
    ]
    # the original's 5 for each crop; one crop of 128 holds as much lung as the 8 of 64 that it takes the place of
    pool = EASY_POOL if easy else 800 * (crop // 64 or 1) ** 3
    choice = {"num_hard": 20 if crop == 128 else 5, "pool": pool, "max_positives": MAX_NODULES}
    net.python("hard_negatives", [*by_anchor, "mining"], tops, choice)
    ignore = "  loss_param { ignore_label: -1 normalization: VALID }\n"  # -1 fills up: the blobs have a fixed size
    for sign in ("pos", "neg"):
        bottoms = [f"{sign}_logit", f"{sign}_label"]
        if weighted:
            name, param = f"loss_{sign}", {"gamma": 1.0}
            net.python(name, bottoms, [name], param, entry="weighted_loss", loss_weight=0.5)
        else:
            text = "  loss_weight: 0.5\n" + ignore
            net.layer(f"loss_{sign}", "SigmoidCrossEntropyLoss", bottoms, [f"loss_{sign}"], text)
    net.layer("loss_reg", "SmoothL1Loss", tops[4:], ["loss_reg"], "  loss_weight: 1\n")
    return net.text()


def deploy_net() -> str:
    """The same net without dropout's effect (phase TEST), losses and training layers; its output is `head`."""
    net = NetText("rpn3d", _NOTE)
    cells = DEPLOY_VOXELS // STRIDE
    for name, shape in (("data", (1, 1, *[DEPLOY_VOXELS] * 3)), ("coord", (1, 3, *[cells] * 3))):
        dims = " ".join(f"dim: {extent}" for extent in shape)
        net.layer(name, "Input", [], [name], f"  input_param {{ shape {{ {dims} }} }}\n")
    net.body("data", "coord")
    return net.text()


def solver(stage: Stage) -> str:
    """The solver of one stage: SGD in steps, as the team trained, or falling to nothing."""
    policy = f'lr_policy: "step"\ngamma: 0.1\nstepsize: {stage.stepsize}' if stage.stepsize else POLY
    return f"""# {_NOTE}
net: "{stage.net}"
type: "SGD"
base_lr: {stage.base_lr:g}
{policy}
momentum: 0.9
weight_decay: {WEIGHT_DECAY:g}
max_iter: {stage.max_iter}
display: 20
snapshot: {stage.snapshot}
snapshot_prefix: "rpn3d_{stage.name}"
random_seed: 1
solver_mode: CPU
"""


def generate() -> dict[str, str]:
    """All texts by file name."""
    texts = {"deploy.prototxt": deploy_net()}
    for stage in STAGES:
        texts[stage.net] = train_net(stage.crop, stage.batch, stage.weighted, frozen=stage.frozen, easy=stage.easy)
        texts[f"solver_{stage.name}.prototxt"] = solver(stage)
    return texts


def write(folder: Path) -> list[Path]:
    """Write all texts into `folder`, each whole or not at all; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in generate().items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(path)
