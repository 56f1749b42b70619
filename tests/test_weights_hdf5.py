"""HDF5 weights and solver states: Caffe's own files, round trips, shared blobs, files that are not to be trusted."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from caffe_golden import assert_close, net_folder, read_case
from conftest import ROOT, need

from caffe_models.errors import WeightsError
from caffe_models.net import Net
from caffe_models.text_format import parse_text
from caffe_models.weights import SolverState, read_caffemodel, read_solverstate, write_caffemodel, write_solverstate
from caffe_models.weights_hdf5 import ABSENT

SHARED = """name: "shared"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  inner_product_param { num_output: 3 } }
layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 } }
"""


def arrays() -> dict[str, list[np.ndarray]]:
    draw = np.random.default_rng(0)
    return {
        "conv": [draw.normal(size=(2, 3, 3, 3, 3)).astype(np.float32), np.array([1, -0.0], np.float32)],
        "norm ä": [np.array([np.nan, np.inf, 1e-45], np.float32), np.zeros((), np.float32), np.zeros(2, np.float32)],
    }


@pytest.mark.parametrize("name", ["extended_3d", "bvlc_2d"])
def test_caffes_own_files_hold_the_same_weights_in_both_forms(name: str) -> None:
    folder = net_folder(f"topology/{name}")
    binary, hdf5 = read_caffemodel(folder / "weights.caffemodel"), read_caffemodel(folder / "weights.caffemodel.h5")
    assert set(binary) == set(hdf5) == {"conv1", "bn1", "sc1", "conv2", "up1"}
    for layer, blobs in binary.items():
        assert [blob.tobytes() for blob in hdf5[layer]] == [blob.tobytes() for blob in blobs]
        assert [blob.shape for blob in hdf5[layer]] == [blob.shape for blob in blobs]


def test_a_net_runs_with_hdf5_weights() -> None:
    torch = pytest.importorskip("torch")
    folder = net_folder("topology/extended_3d")
    case = read_case(folder, "extended")
    net = Net.from_prototxt(folder / "deploy.prototxt")
    report = net.load(read_caffemodel(folder / "weights.caffemodel.h5"), "h5")
    assert report.missing == report.unused == ()
    found = net.to_torch().forward({blob: torch.from_numpy(array) for blob, array in case.inputs.items()})
    for blob, wanted in case.outputs.items():
        assert_close(found[blob].detach(), wanted, 1e-5, blob)


def test_written_as_caffe_lays_it_out(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel.h5"
    write_caffemodel(path, arrays(), "net", {"conv": "Convolution"})
    with h5py.File(path) as file:
        assert set(file) == {"data"}
        assert set(file["data/conv"]) == {"0", "1"}
        assert file["data/conv/0"].dtype == np.dtype("<f4")
    found = read_caffemodel(path)
    for name, blobs in arrays().items():
        assert [(one.shape, one.tobytes()) for one in found[name]] == [(one.shape, one.tobytes()) for one in blobs]
        assert all(one.flags.writeable and one.flags.c_contiguous for one in found[name])


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "x.h5", arrays(), "net", {})
    (tmp_path / "x.h5").rename(tmp_path / "x.caffemodel")
    assert set(read_caffemodel(tmp_path / "x.caffemodel")) == set(arrays())


def test_solver_state(tmp_path: Path) -> None:
    history = [np.ones((2, 3, 1), np.float32), np.zeros(4, np.float32)] + [np.full(1, 7, np.float32)] * 10
    for state in (SolverState(0, "", 0), SolverState(7, "ä_iter_7.caffemodel.h5", 2, history, 0.25, 5)):
        path = tmp_path / "x.solverstate.h5"
        write_solverstate(path, state)
        found = read_solverstate(path)
        assert (found.iteration, found.learned_net, found.current_step) == (
            (state.iteration, state.learned_net, state.current_step)
        )
        assert (found.minimum_loss, found.iter_last_event) == (state.minimum_loss, state.iter_last_event)
        assert [one.tobytes() for one in found.history] == [one.tobytes() for one in state.history]
    with h5py.File(path) as file:  # what Caffe's reader asks for: one 32-bit number, a text with a zero at its end
        assert file["iter"].shape == (1,)
        assert file["iter"].dtype == np.int32
        kind = file["learned_net"].id.get_type()
        assert (kind.get_strpad(), kind.get_size()) == (h5py.h5t.STR_NULLTERM, len(state.learned_net.encode()) + 1)


def test_a_solver_goes_on_from_hdf5_bit_for_bit(data_dir: Path, tmp_path: Path) -> None:
    """Real Caffe's middle snapshot written again in HDF5; both ways end in the same weights."""
    torch = pytest.importorskip("torch")
    from caffe_models.solver import Solver

    folder = need(data_dir / "caffe_golden" / "train" / "adam_fixed")
    (tmp_path / "train.prototxt").write_text((folder / "train.prototxt").read_text())
    text = (folder / "solver.prototxt").read_text()
    (tmp_path / "solver.prototxt").write_text(
        text.replace("snapshot_prefix:", "snapshot_format: HDF5 snapshot_prefix:")
    )
    with np.load(folder / "inputs.npz") as stored:
        feed = {name: stored[name] for name in stored.files}

    def run(solver: Solver, until: int) -> None:
        while solver.iteration < until:
            now = solver.iteration
            solver.step([{name: torch.from_numpy(array[now, 0]) for name, array in feed.items()}])

    whole = Solver.from_prototxt(tmp_path / "solver.prototxt", folder / "initial.caffemodel")
    whole.snapshot_prefix = str(tmp_path / "snap")
    run(whole, 10)
    assert (tmp_path / "snap_iter_5.solverstate.h5").is_file()
    assert (tmp_path / "snap_iter_5.caffemodel.h5").is_file()
    resumed = Solver.from_prototxt(tmp_path / "solver.prototxt")
    resumed.snapshot_prefix = str(tmp_path / "again")
    resumed.restore(tmp_path / "snap_iter_5.solverstate.h5")
    assert resumed.iteration == 5
    run(resumed, 10)
    for name, blobs in whole.net.weights().items():
        assert all(np.array_equal(a, b) for a, b in zip(blobs, resumed.net.weights()[name], strict=True)), name


def test_shared_blobs_are_stored_once(tmp_path: Path) -> None:
    """As Caffe writes them: a shared blob only under its owner; `c` owns nothing, `b` its bias alone."""
    path = tmp_path / "x.caffemodel.h5"
    draw = np.random.default_rng(1)
    weight, bias, own = (draw.normal(size=size).astype(np.float32) for size in ((3, 3), 3, 3))
    with h5py.File(path, "w") as file:
        for name, blobs in {"data": {}, "a": {"0": weight, "1": bias}, "b": {"1": own}, "c": {}}.items():
            group = file.create_group(f"data/{name}")
            for index, blob in blobs.items():
                group[index] = blob
        file.create_group("diff/a")["0"] = weight
    net = Net.from_message(parse_text(SHARED))
    found = read_caffemodel(path)
    assert found["b"][0] is ABSENT
    assert net.load(found, str(path)).missing == ()
    for layer, wanted in {"a": [weight, bias], "b": [weight, own], "c": [weight, bias]}.items():
        assert all(np.array_equal(a, b) for a, b in zip(net.weights()[layer], wanted, strict=True)), layer
    alone = Net.from_message(parse_text(SHARED.replace('param { name: "w" }', "param { }")))
    with pytest.raises(WeightsError, match=r'layer "b": blob 0 has shape \(0,\)'):
        alone.load(found, str(path))


def test_names_that_hdf5_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r'layer named "inception/1x1".*write a \.caffemodel instead'):
        write_caffemodel(tmp_path / "x.h5", {"inception/1x1": [np.zeros(1, np.float32)]}, "net", {})
    assert not list(tmp_path.iterdir())


def damaged(build: Callable[[h5py.File], None], path: Path) -> None:
    with h5py.File(path, "w") as file:
        build(file)


def no_layers(file: h5py.File) -> None:
    file.create_group("data")


def no_data(file: h5py.File) -> None:
    file["x"] = 1.0


def a_state(file: h5py.File) -> None:
    file["iter"] = np.array([1], np.int32)


def data_is_an_array(file: h5py.File) -> None:
    file["data"] = np.zeros(3, np.float32)


def whole_numbers(file: h5py.File) -> None:
    file["data/c/0"] = np.zeros(3, np.int32)


def texts(file: h5py.File) -> None:
    file["data/c/0"] = "text"


def half_floats(file: h5py.File) -> None:
    file["data/c/0"] = np.zeros(3, np.float16)


def nothing_in_it(file: h5py.File) -> None:
    file["data/c/0"] = h5py.Empty("f4")


def a_billion_numbers(file: h5py.File) -> None:
    file.create_dataset("data/c/0", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 10))


def a_bomb(file: h5py.File) -> None:
    file.create_dataset("data/c/0", data=np.zeros(1 << 20, np.float32), compression="gzip")


def one_array_a_thousand_times(file: h5py.File) -> None:
    file["data/c/0"] = np.zeros(1 << 12, np.float32)
    for index in range(1, 1000):
        file[f"data/c/{index}"] = file["data/c/0"]


def soft(file: h5py.File) -> None:
    file["elsewhere"] = np.zeros(3, np.float32)
    file["data/c/0"] = h5py.SoftLink("/elsewhere")


def external(file: h5py.File) -> None:
    file["data/c"] = h5py.ExternalLink("secret.h5", "/data/c")


def external_data(file: h5py.File) -> None:
    file["data"] = h5py.ExternalLink("secret.h5", "/data")


def raw_bytes_of_another_file(file: h5py.File) -> None:
    file.create_dataset("data/c/0", (3,), "f4", external=[("secret.bin", 0, 12)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "/data/c/0", (3,))
    file.create_virtual_dataset("data/c/0", layout)


def itself(file: h5py.File) -> None:
    group = file.create_group("data/c")
    group["0"] = file["data"]


def other_names(file: h5py.File) -> None:
    file["data/c/weight"] = np.zeros(3, np.float32)


def a_far_index(file: h5py.File) -> None:
    file["data/c/99999"] = np.zeros(3, np.float32)


HOSTILE = [
    (no_layers, "there is no layer in it"),
    (no_data, "it has no group `data`"),
    (a_state, "it looks like a .solverstate.h5"),
    (data_is_an_array, '"data" is no group'),
    (whole_numbers, "is of type int32; allowed: float or double"),
    (texts, "allowed: float or double"),
    (half_floats, "is of type float16"),
    (nothing_in_it, "is no array"),
    (a_billion_numbers, "more than the file has room for"),
    (a_bomb, "save it without compression"),
    (one_array_a_thousand_times, "more than the file has room for"),
    (soft, "is a link to another place"),
    (external, "is a link to another place"),
    (external_data, "is a link to another place"),
    (raw_bytes_of_another_file, "lies in another file"),
    (virtual, "lies in another file"),
    (itself, "is no array"),
    (other_names, 'found "weight"; allowed: 0, 1, 2'),
    (a_far_index, "some are missing"),
]


@pytest.mark.parametrize(("build", "expected"), HOSTILE, ids=[build.__name__ for build, _ in HOSTILE])
def test_files_that_are_not_to_be_trusted(
    build: Callable[[h5py.File], None], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret.h5", "w") as secret:
        secret["data/c/0"] = np.ones(3, np.float32)
    Path("secret.bin").write_bytes(bytes(12))
    damaged(build, tmp_path / "x.caffemodel.h5")
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        read_caffemodel(tmp_path / "x.caffemodel.h5")
    assert time.perf_counter() - start < 1
    assert expected in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "x.caffemodel.h5"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda file: file.__delitem__("history"), "it has no `iter` and `history`"),
        (lambda file: file.__delitem__("history/0"), "some are missing"),
        (lambda file: (file.__delitem__("iter"), file.__setitem__("iter", 1.5)), "iter: is of type float64"),
        (lambda file: (file.__delitem__("iter"), file.__setitem__("iter", [1, 2])), "iter: has 2 values; allowed: one"),
    ],
)
def test_damaged_states(change: Callable[[h5py.File], object], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.solverstate.h5"
    write_solverstate(path, SolverState(3, "x", 0, [np.ones(2, np.float32)] * 2))
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(WeightsError, match=expected):
        read_solverstate(path)


FUZZ = """
import random, sys, time
from pathlib import Path
from caffe_models.errors import WeightsError
from caffe_models.weights import read_caffemodel
source, scratch, seed = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
slowest = refused = 0
for round in range(300):
    data = bytearray(source)
    if round % 3 == 0:
        data = data[: draw.randrange(8, len(data))]
    else:
        for _ in range(draw.randrange(1, 9)):
            data[draw.randrange(8, len(data))] = draw.randrange(256)
    scratch.write_bytes(data)
    start = time.perf_counter()
    try:
        read_caffemodel(scratch)
    except WeightsError:
        refused += 1
    slowest = max(slowest, time.perf_counter() - start)
assert slowest < 1, slowest
assert refused >= 100, refused
"""


@pytest.mark.parametrize("seed", [1])
def test_damage_anywhere_ends_in_a_clear_error(seed: int, tmp_path: Path) -> None:
    """In a process of its own: a crash of the HDF5 library would take the tests with it."""
    whole = tmp_path / "whole.h5"
    write_caffemodel(whole, {"conv": [np.ones((2, 2), np.float32), np.zeros(2, np.float32)]}, "net", {})
    scratch = tmp_path / "damaged.h5"
    command = [sys.executable, "-c", FUZZ, str(whole), str(scratch), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"


def test_random_bytes_behind_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for seed in range(20):
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + random.Random(seed).randbytes(4096))
        with pytest.raises(WeightsError, match="not a whole HDF5 file"):
            read_caffemodel(path)
