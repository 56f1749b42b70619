"""Drawn nets: groups found from the wiring, no box on another, no curve over a box, names that stay names."""

import itertools
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from caffe_golden import net_folder
from conftest import ROOT, data_folder, need

import train.python_layers  # noqa: F401  our train nets have layers of it
from caffe_models.draw import boxes_and_links, draw_net, size_of
from caffe_models.draw_layout import Layout, layout
from caffe_models.errors import NetError
from caffe_models.net import Net
from caffe_models.net_boxes import shape_text
from caffe_models.net_groups import collapse, group_layers
from caffe_models.text_format import parse_text

NETS = ROOT / "prototxt" / "rpn3d"


def net_of(*layers: str, shape: str = "1 8 16 16") -> Net:
    dims = " ".join(f"dim: {n}" for n in shape.split())
    head = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
    return Net.from_message(parse_text("\n".join((head, *layers)), "NetParameter"))


def one(name: str, kind: str, bottom: str, more: str = "", top: str = "") -> str:
    bottoms = " ".join(f'bottom: "{blob}"' for blob in bottom.split())
    tops = " ".join(f'top: "{blob}"' for blob in (top or name).split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} {tops} {more} }}'


def conv(name: str, bottom: str, out: int = 8, kernel: int = 3, more: str = "") -> str:
    param = f"num_output: {out} kernel_size: {kernel} pad: {kernel // 2} {more}"
    return one(name, "Convolution", bottom, f"convolution_param {{ {param} }}")


def names(net: Net) -> list[list[str]]:
    return [[net.layers[i].spec.name for i in group.layers] for group in group_layers(net).groups]


def test_our_train_net_becomes_its_blocks() -> None:
    net = Net.from_prototxt(NETS / "train_64.prototxt", "TRAIN")
    groups = group_layers(net).groups
    assert len(net.layers) == 151
    assert sorted(i for group in groups for i in group.layers) == list(range(151))  # each layer in one box
    assert sum(group.residual for group in groups) == 16  # as many as there are Eltwise
    assert len(groups) == 36
    first = next(group for group in groups if group.residual)
    assert {net.layers[i].spec.name for i in first.layers} >= {"forw1_1_conv1", "forw1_1_shortcut", "forw1_1_relu2"}


def test_chains_end_where_somebody_else_reads() -> None:
    net = net_of(
        conv("c", "data"),
        one("b", "BatchNorm", "c", top="c"),
        one("r", "ReLU", "c", top="c"),
        one("s", "Sigmoid", "c"),
        one("t", "TanH", "c"),
    )
    assert names(net) == [["data"], ["c", "b", "r"], ["s"], ["t"]]


def test_names_do_not_matter() -> None:
    texts = [conv("c", "data"), one("r", "ReLU", "c"), conv("d", "r"), one("sum", "Eltwise", "d data")]
    renamed = [text.replace('"d"', '"pool"').replace('"c"', '"split"').replace('"r"', '"x"') for text in texts]
    assert (
        [len(group) for group in names(net_of(*texts))] == [len(group) for group in names(net_of(*renamed))] == [1, 4]
    )


def test_what_is_no_residual_block() -> None:
    leaking = net_of(conv("c", "data"), conv("d", "c"), one("s", "Eltwise", "d data"), one("t", "Sigmoid", "c"))
    assert not any(group.residual for group in group_layers(leaking).groups)  # "c" is read from outside
    two = net_of(
        'layer { name: "e" type: "Input" top: "e" input_param { shape { dim: 1 dim: 8 dim: 16 dim: 16 } } }',
        conv("c", "data"),
        one("s", "Eltwise", "c e"),
    )
    assert not any(group.residual for group in group_layers(two).groups)  # two sources
    up = "convolution_param { num_output: 8 kernel_size: 2 stride: 2 }"
    hourglass = net_of(
        one("p", "Convolution", "data", up), one("u", "Deconvolution", "p", up), one("s", "Eltwise", "u data")
    )
    assert not any(group.residual for group in group_layers(hourglass).groups)  # down and up: a skip, to be seen


def test_pre_activation_goes_with_its_convolution() -> None:
    net = net_of(
        conv("c", "data"),
        one("b1", "BatchNorm", "c"),
        one("r1", "ReLU", "b1", top="b1"),
        conv("d", "b1"),
        one("s", "Eltwise", "d c"),
    )
    assert names(net) == [["data"], ["c"], ["b1", "r1", "d", "s"]]


def test_splits_are_looked_through() -> None:
    net = net_of(conv("c", "data"), one("sp", "Split", "c", top="x y"), conv("d", "x"), one("s", "Eltwise", "d y"))
    grouping = group_layers(net)
    assert names(net) == [["data"], ["c"], ["d", "s"]]
    assert [(link.source, link.target) for link in grouping.links] == [(0, 1), (1, 2)]
    boxes, links = boxes_and_links(net_of(one("sp", "Split", "data", top="x y")))
    assert [box.kind for box in boxes] == ["input", "output", "output"]
    assert links == [(0, 1), (0, 2)]


def test_rows_of_equal_blocks_in_a_large_net() -> None:
    layers = []
    before = "data"
    for number in range(90):
        layers += [conv(f"c{number}", before), one(f"s{number}", "Eltwise", f"c{number} {before}")]
        before = f"s{number}"
    net = net_of(*layers)
    assert len(group_layers(net).groups) == 91
    small = collapse(net, group_layers(net))
    assert [(len(group.layers), group.repeats) for group in small.groups] == [(1, 1), (180, 90)]
    boxes, _ = boxes_and_links(net)
    assert boxes[1].lines[0] == ("title", "90 × Residual block, 8 → 8")
    assert len(boxes_and_links(net, full=True)[0]) == 182


def overlap(sizes: list[tuple[float, float]], placed: Layout) -> list[tuple[int, int]]:
    boxes = [
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        for (x, y), (w, h) in zip(placed.centres, sizes, strict=True)
    ]  # fmt: skip
    return [
        (i, j)
        for i, a in enumerate(boxes)
        for j, b in enumerate(boxes[:i])
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def crossed(sizes: list[tuple[float, float]], placed: Layout) -> list[tuple[int, int]]:
    """(curve, box) for each box that a point of a curve, sampled finely, lies inside of."""
    found = []
    for number, points in enumerate(placed.curves):
        path = []
        for index, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(points)):
            for step in range(25):
                t = step / 24
                # the S between two points with vertical ends; x moves as a Bezier curve does
                share = 3 * t * t - 2 * t**3 if index % 2 == 1 else t
                path.append(
                    (x0 + (x1 - x0) * share, y0 + (y1 - y0) * (1.5 * t - 1.5 * t * t + t**3 if index % 2 else t))
                )
        for box, ((cx, cy), (w, h)) in enumerate(zip(placed.centres, sizes, strict=True)):
            if any(abs(x - cx) < w / 2 - 0.5 and abs(y - cy) < h / 2 - 0.5 for x, y in path):
                found.append((number, box))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_nothing_overlaps_in_any_graph(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randint(2, 60)
    sizes = [(draw.uniform(60, 260), draw.uniform(30, 90)) for _ in range(count)]
    links = [(draw.randrange(max(0, n - draw.randint(1, 20)), n), n) for n in range(1, count) if draw.random() < 0.9]
    links += [tuple(sorted(draw.sample(range(count), 2))) for _ in range(count // 4)]  # type: ignore[misc]
    links = list(dict.fromkeys(links))
    placed = layout(sizes, links)
    assert overlap(sizes, placed) == []
    assert crossed(sizes, placed) == []
    for (x, y), (w, h) in zip(placed.centres, sizes, strict=True):
        assert x - w / 2 >= 0 <= y - h / 2
        assert x + w / 2 <= placed.width
        assert y + h / 2 <= placed.height
    assert all(end[-1][1] > end[0][1] for end in placed.curves)  # every link leads down


def test_a_chain_is_straight_and_a_skip_runs_beside_it() -> None:
    placed = layout([(100.0, 40.0)] * 5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
    assert len({x for x, _ in placed.centres}) == 1
    skip = placed.curves[-1]
    assert len({x for x, _ in skip[2:-2]}) == 1
    assert abs(skip[2][0] - placed.centres[0][0]) > 50


@pytest.mark.parametrize("name", ["unet2d", "unet2d_crop", "vnet3d"])
def test_known_nets(name: str, tmp_path: Path) -> None:
    folder = need(data_folder() / "caffe_golden" / "nets" / name)
    boxes, links = boxes_and_links(Net.from_prototxt(folder / "deploy.prototxt"))
    sizes = [size_of(box) for box in boxes]
    placed = layout(sizes, links)
    assert overlap(sizes, placed) == []
    assert crossed(sizes, placed) == []
    assert sum(box.kind == "deconvolution" for box in boxes) == (2 if name == "vnet3d" else 4)
    draw_net(folder / "deploy.prototxt", tmp_path / "net.svg")


def texts(svg: Path) -> list[str]:
    tree = ElementTree.parse(svg)
    return ["".join(node.itertext()).strip() for node in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_files(tmp_path: Path) -> None:
    net = net_folder("bn5") / "deploy.prototxt"
    drawn = draw_net(net, tmp_path / "net.svg")
    assert (drawn.layers, drawn.boxes) == (9, 4)
    found = texts(tmp_path / "net.svg")
    assert "Conv 3×3×3, 2 → 5" in found
    assert "Deconv 2×2×2 /2, 4 → 3" in found
    assert "2 × 3 × 12×10×14" in found
    first = (tmp_path / "net.svg").read_bytes()
    draw_net(net, tmp_path / "net.svg")
    assert (tmp_path / "net.svg").read_bytes() == first  # the same picture from the same net
    draw_net(net, tmp_path / "net.png", full=True)
    assert (tmp_path / "net.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(NetError, match=r"must end in \.svg or \.png"):
        draw_net(net, tmp_path / "net.pdf")
    assert not (tmp_path / "net.pdf").exists()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    evil = "</text><script>alert(1)</script>"
    file = tmp_path / "evil.prototxt"
    file.write_text(
        f'name: "{evil}&$x_{{1}}$" layer {{ name: "{evil}" type: "Input" top: "{evil}" '
        "input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }\n"
        + one(r"$\\frac{\001\033[31m\n", "ReLU", evil, top="out&<>").replace("\\n", "\\\\n")
    )
    draw_net(file, tmp_path / "evil.svg")
    tags = {node.tag.rpartition("}")[2] for node in ElementTree.parse(tmp_path / "evil.svg").iter()}
    assert "script" not in tags
    assert "<script" not in (tmp_path / "evil.svg").read_text(encoding="utf-8")
    assert any("out&<>" in text for text in texts(tmp_path / "evil.svg"))
    draw_net(file, tmp_path / "evil.png")


def test_a_large_net_is_drawn_in_full(tmp_path: Path) -> None:
    layers = [one("c0", "ReLU", "data")] + [one(f"c{n}", "ReLU", f"c{n - 1}") for n in range(1, 320)]
    file = tmp_path / "deep.prototxt"
    head = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 } } }\n'
    file.write_text(head + "\n".join(layers))
    assert draw_net(file, tmp_path / "deep.svg").boxes == 2
    assert draw_net(file, tmp_path / "full.svg", full=True).boxes == 321


def test_parts_that_do_not_hang_together() -> None:
    net = net_of(
        conv("c", "data"),
        'layer { name: "e" type: "Input" top: "e" input_param { shape { dim: 1 dim: 3 } } }',
        one("r", "ReLU", "e"),
    )
    boxes, links = boxes_and_links(net)
    assert [box.kind for box in boxes].count("output") == 2
    sizes = [size_of(box) for box in boxes]
    assert overlap(sizes, layout(sizes, links)) == []
    assert layout([], []).centres == ()


def test_shapes_as_people_write_them() -> None:
    assert shape_text((1, 24, 8, 8, 8)) == "24 × 8×8×8"
    assert shape_text((4, 24, 8, 8)) == "4 × 24 × 8×8"
    assert (shape_text((2, 10)), shape_text(())) == ("2×10", "one value")
