"""The training benchmark, small; and that the loops it compares do equal work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.training import Task, bench_training, solver_of, table, write_json
from bench.training_curves import draw_curves, last_quarter, moving_mean, train_both
from bench.training_curves import table as curves_table
from bench.training_curves import write_json as write_curves
from bench.training_loop import PlainBatch, PlainStep, TrainStep, random_batch, three_part_loss
from bench.training_report import draw_train, markdown
from bench.turns import Loop
from caffe_models.errors import Rpn3dError
from caffe_models.generators.rpn3d import Stage, solver, train_net
from caffe_models.rpn.targets import NEGATIVE, POSITIVE
from commands.options import NET, WEIGHTS
from train.dataset import PreparedScan, save

STAGE = Stage(name="16", crop=16, batch=2, base_lr=0.01, max_iter=100, stepsize=100, snapshot=50)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Crops of 16, so that a step takes a tenth of a second."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "train_16.prototxt").write_text(train_net(16, 2))
    (folder / "solver_16.prototxt").write_text(solver(STAGE))
    (folder / "solver_level2.prototxt").write_text("")
    voxels = np.random.default_rng(0).integers(20, 60, (48, 48, 48)).astype(np.uint8)
    voxels[20:28, 20:28, 20:28] = 180
    nodules = np.array([[23.5, 23.5, 23.5, 8, 1]], np.float32)
    (folder / "prepared").mkdir()
    save(PreparedScan("s", voxels, np.ones(voxels.shape, bool), nodules, True), folder / "prepared")
    return Task(folder / "prepared", "a cube", folder, WEIGHTS, 1, (16,), ("f32",), "bf16 left out", steps=2, warmup=1)


def job(task: Task, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    paths = {"solver": str(task.nets / "solver_16.prototxt"), "weights": str(WEIGHTS), "data": str(task.data)}
    return {**paths, "folder": str(tmp_path), "crop": 16, "batch": 2, "bf16": False, "seed": 1, "threads": 1, **changes}


def test_figures_table_and_file(task: Task, tmp_path: Path) -> None:
    said: list[str] = []
    figures = bench_training(task, said.append)
    written = json.loads(write_json(figures, tmp_path / "out" / "bench_train.json").read_text())
    assert written == json.loads(json.dumps(figures))
    assert (written["scans"], written["steps"], written["warmup"]) == (1, 2, 1)
    row = written["rows"][0]
    assert (row["crop"], row["precision"], row["batch"]) == (16, "f32", 2)
    ours, plain = row["loops"]
    assert (ours["loop"], plain["loop"]) == ("rpn3d train", "plain")
    assert row["ratio"] == pytest.approx(ours["crops_per_s"] / plain["crops_per_s"])
    for one in (ours, plain):
        assert len(one["seconds"]) == 2
        assert one["crops_per_s"] == pytest.approx(2 / np.median(one["seconds"]))
        assert one["cpu_s"][0] > 0
        assert one["peak_rss_bytes"] > 100 << 20
    assert plain["wait_share"] == 0
    assert 0 < ours["wait_share"] < 1
    text = table(written)
    assert "a cube" in text
    assert "bf16 left out" in text.splitlines()
    assert said[0] in text
    page = markdown(written)
    assert f"| 16 | 2 | f32 | rpn3d train | {ours['crops_per_s']:.2f} |" in page
    assert f"| {row['ratio']:.3f} |" in page
    assert "bf16 left out" in page.splitlines()
    assert draw_train(written, tmp_path / "train.png").stat().st_size > 5_000


def test_the_plain_loop_computes_the_same_loss_as_the_train_net(task: Task, tmp_path: Path) -> None:
    """Same crops, targets, dropout and hard negatives into both: the 151 layers against the loop written by hand."""
    ours = TrainStep(job(task, tmp_path))
    net = ours.solver.net
    with torch.random.fork_rng():
        torch.manual_seed(5)
        values = net.forward({}, keep=["data", "coord", "target"])
    wanted = float(net.total_loss(values).detach())
    target = values["target"].reshape(2, 3, 5, -1)
    crop, anchor, cell = torch.nonzero(target[:, :, 0] == POSITIVE).unbind(1)
    assert len(crop)
    negatives = torch.nonzero(target[:, :, 0].reshape(-1) == NEGATIVE)[:, 0]  # 192 a crop: all are in the pool of 800
    batch = PlainBatch(
        values["data"],
        values["coord"],
        torch.stack([crop, anchor, cell]),
        target[crop, anchor, 1:, cell],
        negatives,
    )
    plain = PlainStep(job(task, tmp_path), torch.channels_last_3d)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        found = three_part_loss(plain.module(batch.data, batch.coord), batch).item()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_the_loss_in_three_parts_by_hand() -> None:
    """One crop, two cells: logit 0 at the positive, 2 and -1 at negatives, of which the pool has both; deltas off by
    0.5 and 2."""
    head = torch.zeros(1, 15, 1, 1, 2)
    head[0, 0, 0, 0, 1] = 2.0  # anchor 0, cell 1
    head[0, 5, 0, 0, 0] = -1.0  # anchor 1, cell 0
    deltas = torch.tensor([[0.5, 2.0, 0.0, 0.0]])
    batch = PlainBatch(torch.empty(0), torch.empty(0), torch.tensor([[0], [0], [0]]), deltas, torch.tensor([1, 2]))
    negative = (np.log1p(np.exp(2.0)) + np.log1p(np.exp(-1.0))) / 2
    by_hand = 0.5 * np.log(2) + 0.5 * negative + (0.5 * 0.5**2 + 2.0 - 0.5)
    assert float(three_part_loss(head, batch)) == pytest.approx(by_hand)


def test_random_batches_have_as_many_targets_as_crops_of_a_training_run() -> None:
    made = torch.Generator().manual_seed(0)
    batch = random_batch(32, 3, made, torch.channels_last_3d)
    assert batch.data.shape == (3, 1, 32, 32, 32)
    assert batch.coord.shape == (3, 3, 8, 8, 8)
    assert batch.positives.shape == (3, 3)
    assert batch.negatives.shape == (3 * 800,)
    assert len(set(batch.negatives.tolist())) == 3 * 800
    assert int(batch.negatives.max()) < 3 * 3 * 512


STAND_IN = """
import json, sys, threading, time
count = 0
def tick():
    global count
    while True:
        count += 1
        time.sleep(0.001)
threading.Thread(target=tick, daemon=True).start()
print(json.dumps({"batch": 3}), flush=True)
for line in sys.stdin:
    if line.strip() == "13":
        sys.exit("it went wrong")
    print(json.dumps([count] * int(line)), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "stand_in_loop.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "stand_in_loop"


def test_a_loop_stands_still_but_in_its_turn(stand_in: str, tmp_path: Path) -> None:
    with Loop({"loop": "one"}, tmp_path / "one", stand_in) as loop:
        assert loop.batch == 3
        (before,) = loop.turn(1)
        time.sleep(0.3)
        (after, _) = loop.turn(2)  # its thread would have counted 300 further
        assert 0 <= after - before < 60  # type: ignore[operator]
        with pytest.raises(Rpn3dError, match="the loop one ended with exit code 1: it went wrong"):
            loop.turn(13)


def test_a_stopped_loop_ends_with_the_process_that_started_it(stand_in: str, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom bench.turns import Loop\n"
        f"loop = Loop({{'loop': 'one'}}, Path({str(tmp_path / 'two')!r}), {stand_in!r})\n"
        "print(loop._process.pid, flush=True)\nsys.stdin.read()"
    )
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(100):
            if not is_running(child):
                break
            time.sleep(0.05)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crops": (48,)}, r"no solver_48\.prototxt for crop 48; crops are 16"),
        ({"precisions": ("f16",)}, 'precision "f16" is not known; allowed: f32, bf16'),
        ({"steps": 0}, "steps 0, warmup 1; give 1 or more"),
    ],
)
def test_what_cannot_be_measured_is_said(task: Task, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Rpn3dError, match=message):
        bench_training(Task(**{**vars(task), **changes}))


def test_all_three_crops_of_the_issue_have_their_solver() -> None:
    assert [solver_of(NET.parent, crop).name for crop in (32, 64, 128)] == [
        f"solver_{crop}.prototxt" for crop in (32, 64, 128)
    ]


def test_curves_of_both_precisions_from_the_same_start(task: Task, tmp_path: Path) -> None:
    crops, _, after = train_net(16, 2).partition('layer {\n  name: "preBlock_conv1"')
    head = 'layer { name: "head" type: "Convolution" bottom: "data" top: "head" convolution_param { num_output: 15 '
    head += 'kernel_size: 4 stride: 4 weight_filler { type: "xavier" } } }\n'
    silence = 'layer { name: "silence" type: "Silence" bottom: "coord" }\n'
    losses = after[after.index('layer {\n  name: "targets"') :]
    (tmp_path / "train_16.prototxt").write_text(crops + head + silence + losses)  # one layer: bfloat16 is slow here
    solver_path = tmp_path / "solver_16.prototxt"
    solver_path.write_text(solver(STAGE))
    figures = train_both(solver_path, task.data, "a cube", tmp_path, 8, 1)
    f32, bf16 = figures["total_loss"]["f32"], figures["total_loss"]["bf16"]
    assert len(f32) == len(bf16) == 8
    parts = figures["losses"]["f32"]
    assert f32[3] == pytest.approx(0.5 * parts["loss_pos"][3] + 0.5 * parts["loss_neg"][3] + parts["loss_reg"][3])
    assert bf16 == pytest.approx(f32, rel=0.05)
    assert bf16[0] != f32[0]  # rounded
    assert write_curves(figures, tmp_path / "x.json").is_file()
    assert "difference" in curves_table(figures).splitlines()[-1]
    assert draw_curves(figures, tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(Rpn3dError, match="7 iterations are too few"):
        train_both(solver_path, task.data, "a cube", tmp_path, 7, 1)


def test_last_quarter_and_moving_mean_by_hand() -> None:
    found = last_quarter([9, 9, 9, 9, 9, 9, 1, 2], [0, 0, 0, 0, 0, 0, 2, 5])
    assert found == {"iterations": 2, "f32": 1.5, "bf16": 3.5, "difference": 2.0, "standard_error": pytest.approx(1.0)}
    at, mean = moving_mean([0.0] * 20 + [2.0] * 20)  # a twentieth of 40: two
    assert (at[0], at[-1]) == (2, 40)
    assert mean[18:21].tolist() == [0.0, 1.0, 2.0]
