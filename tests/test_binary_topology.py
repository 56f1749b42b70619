"""The net inside a caffemodel: its dialect, its reading, and how it differs from a text."""

from pathlib import Path

import numpy as np
import pytest
from caffe_golden import net_folder, op_folders, read_case
from conftest import data_folder, need

from caffe_models.binary_topology import detect_binary, differences, read_topology
from caffe_models.errors import PrototxtError, WeightsError
from caffe_models.net import Net
from caffe_models.text_format import parse_text
from caffe_models.translate_files import translate_files
from caffe_models.weights import read_caffemodel
from caffe_models.wire import encode

BOTH = ("bvlc", "intel")
"""In two dimensions these two write the same bytes."""


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("topology/bvlc_2d", BOTH),
        ("topology/intel_2d", BOTH),
        ("topology/extended_2d", ("extended",)),
        ("topology/extended_3d", ("extended",)),
        ("topology/intel_3d", ("intel",)),
        ("topology/intel_3d_folded", ("intel",)),
        ("rpn_scale", ("extended",)),
        ("rpn_scale_intel", ("intel",)),
        ("bn5", ("extended", "intel")),
        ("unet2d", BOTH),
    ],
)
def test_the_dialect_shows_in_the_bytes(name: str, possible: tuple[str, ...]) -> None:
    assert tuple(sorted(detect_binary(net_folder(name) / "weights.caffemodel").possible)) == possible


def test_no_reference_file_is_taken_for_another_dialect_or_another_net() -> None:
    need(data_folder() / "caffe_golden")
    decided = 0
    for dialect in ("bvlc", "intel", "extended"):
        for name, folder in op_folders(dialect).items():
            path = folder / "weights.caffemodel"
            if path.exists():
                found = detect_binary(path)
                assert dialect in found.possible, f"{dialect} {name}: {found}"
                decided += len(found.possible) < 3
                net = Net.from_prototxt(folder / "deploy.prototxt", dialect=dialect)
                assert differences(net, path) == [], f"{dialect} {name}"
    assert decided > 70


def saved(tmp_path: Path, pooling: str, dialect: str) -> Path:
    text = f'layer {{ name: "p" type: "Pooling" bottom: "d" top: "p" pooling_param {{ {pooling} }} }}'
    path = tmp_path / "x.caffemodel"
    path.write_bytes(encode(parse_text(text, dialect=dialect)))
    return path


@pytest.mark.parametrize(
    ("pooling", "dialect", "possible"),
    [
        ("kernel_size: 2 stride: 2", "extended", ("extended",)),
        ("kernel_size: 2 stride: 2", "bvlc", BOTH),
        ("kernel_size: 3 stride: 2 pad: 1", "intel", BOTH),
        ("kernel_size: 3 stride: 2 pad: 1", "extended", ("extended",)),
        ("kernel_size: [3, 3, 3] stride: 4 pad: 1", "extended", ("extended",)),
        (
            "kernel_size: 3 pad: 1",
            "extended",
            ("bvlc", "extended", "intel"),
        ),  # else kernel 1, stride 3: odd, but allowed
        ("kernel_h: 3 kernel_w: 2", "bvlc", BOTH),
        ("kernel_h: 3 kernel_w: 2", "extended", ("extended",)),
        ("global_pooling: true", "bvlc", ("bvlc", "extended", "intel")),
        ("kernel_size_3d: 2", "intel", ("intel",)),
    ],
)
def test_a_pooling_makes_sense_in_some(tmp_path: Path, pooling: str, dialect: str, possible: tuple[str, ...]) -> None:
    assert tuple(sorted(detect_binary(saved(tmp_path, pooling, dialect)).possible)) == possible


def test_an_undecided_pooling_is_not_guessed(tmp_path: Path) -> None:
    path = saved(tmp_path, "kernel_size: 3 pad: 1", "extended")
    with pytest.raises(WeightsError, match="poolings could be of bvlc or extended or intel; say --dialect"):
        read_topology(path)
    pooling = read_topology(path, "extended").get_messages("layer")[0].get_message("pooling_param")
    assert (pooling.get_ints("kernel_size"), pooling.get_ints("pad")) == ((3,), (1,))


DEPLOYS = ["bvlc_2d", "intel_2d", "extended_2d", "extended_3d", "intel_3d"]


@pytest.mark.parametrize("name", DEPLOYS)
def test_a_caffemodel_alone_is_a_net(name: str, tmp_path: Path) -> None:
    """Text and weights made of the binary file give real Caffe's outputs."""
    torch = pytest.importorskip("torch")
    folder = net_folder(f"topology/{name}")
    case = read_case(folder, name.split("_")[0])
    target = "extended" if "3d" in name else "bvlc"
    done = translate_files(folder / "weights.caffemodel", target, tmp_path / "net.prototxt")
    assert [path.name for path in done.files] == ["net.prototxt", "net.caffemodel"]
    net = Net.from_prototxt(tmp_path / "net.prototxt", dialect=target)
    net.load(read_caffemodel(tmp_path / "net.caffemodel"), "net")
    found = net.to_torch().forward({blob: torch.from_numpy(array) for blob, array in case.inputs.items()})
    for blob, wanted in case.outputs.items():
        assert np.abs(found[blob].detach().numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_differences_are_named() -> None:
    folder = net_folder("topology/extended_3d")
    text = (folder / "deploy.prototxt").read_text()
    path = folder / "weights.caffemodel"
    assert differences(Net.from_message(parse_text(text)), path) == []
    other = text.replace("kernel_size: 3 stride: 2 pad: 1", "kernel_size: 2 stride: 2 pad: 1").replace(
        "kernel_size: 3 pad: 1", "kernel_size: 5 pad: 2"
    )
    found = differences(Net.from_message(parse_text(other)), path)
    assert [text.split(": ", 2)[-1] for text in found] == [
        "kernel_size 5 here, 3 there, pad 2 here, 1 there",
        "kernel_size 2 here, 3 there",
    ]
    assert found[1].startswith(f'{path}: layer "pool1" was saved from another layer')
    intel = Net.from_prototxt(net_folder("topology/intel_3d") / "deploy.prototxt")
    assert any("was saved by another Caffe" in text and "than intel" in text for text in differences(intel, path))
    assert differences(intel, folder / "weights.caffemodel.h5") == []


def test_weights_without_a_net(tmp_path: Path) -> None:
    folder = net_folder("topology/extended_3d")
    with pytest.raises(WeightsError, match="HDF5 holds weights, but not how"):
        read_topology(folder / "weights.caffemodel.h5")
    path = tmp_path / "x.caffemodel"
    path.write_bytes(encode(parse_text('layer { name: "c" type: "Convolution" }')))
    with pytest.raises(WeightsError, match="not how its layers are connected; the prototxt is needed"):
        read_topology(path)
    with pytest.raises(PrototxtError, match="bvlc"):
        translate_files(net_folder("topology/bvlc_3d_serialised_only") / "weights.caffemodel", "intel", tmp_path / "o")


def test_our_own_model_holds_no_topology_to_differ_from() -> None:
    """Written by our solver: names, types and blobs; using it warned of 42 layers saved from another net."""
    from commands.options import NET, WEIGHTS

    assert differences(Net.from_prototxt(NET), WEIGHTS) == []
