"""The tensor contract of an exported detector, and what training puts on disk."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

from station.errors import ConfigError, DatasetError
from station.learn.export import Detector, InputForm, freeze, to_bytes
from station.learn.features.backbones import random_backbone
from station.learn.features.local import AveragePool
from station.learn.held_out import hold_out
from station.learn.images import Reader, TrainingImages, from_mvtec, group_by_unit, read_image
from station.learn.simplenet.collapse import CollapsedHead
from station.learn.simplenet.network import Folded
from station.preset import DEFAULT, PAPER, changed
from station.torchscript import load_graph

SMALL = changed(DEFAULT, input_size=128, hidden=16)
FORM = InputForm.of_frames(96, 128, SMALL)


def folded(inputs: int, hidden: int = 16) -> Folded:
    generator = torch.Generator().manual_seed(1)
    shapes = [(hidden, inputs), (hidden,), (hidden,)]
    return Folded(*(torch.randn(s, generator=generator, dtype=torch.float64) / 9 for s in shapes))


def detector(form: InputForm = FORM, smoothing: float = 1.0) -> Detector:
    backbone = random_backbone()
    pools = [AveragePool(channels) for channels in backbone.channels]
    return Detector(
        nn.Sequential(backbone, CollapsedHead(pools, *folded(sum(backbone.channels)))),
        form,
        smoothing,
    )


@pytest.fixture(scope="module")
def frozen() -> torch.jit.ScriptModule:
    return freeze(detector())


def frames(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


class Brightness(nn.Module):
    """Stands in for a network: its map is the picture itself."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images[:, :1], 4)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 96, 128),
        (2, 3, 96, 128),
        (1, 1, 31, 500),
        (1, 3, 500, 31),
        (1, 1, 1, 1),
        (3, 1, 205, 245),
    ],
)
def test_any_frame_is_taken(frozen: torch.jit.ScriptModule, shape: tuple[int, ...]) -> None:
    with torch.inference_mode():
        score, anomaly_map = frozen(frames(*shape))
    assert score.dtype == anomaly_map.dtype == torch.float32
    assert score.shape == (shape[0],)
    assert anomaly_map.shape[0] == shape[0]
    assert torch.equal(score, anomaly_map.flatten(1).amax(1))
    assert torch.isfinite(score).all()


def test_batch_and_single_frames_agree(frozen: torch.jit.ScriptModule) -> None:
    batch = frames(3, 1, 96, 128)
    with torch.inference_mode():
        together = frozen(batch)[0]
        alone = torch.cat([frozen(one[None])[0] for one in batch])
    assert torch.allclose(together, alone, atol=1e-4)


def test_grey_and_the_same_grey_in_colour_agree(frozen: torch.jit.ScriptModule) -> None:
    grey = frames(1, 1, 120, 160)
    with torch.inference_mode():
        assert torch.allclose(frozen(grey)[0], frozen(grey.expand(-1, 3, -1, -1))[0], atol=1e-4)


@pytest.mark.parametrize("bad", [torch.zeros(1, 1, 96, 128), frames(1, 2, 96, 128)])
def test_other_tensors_are_refused(frozen: torch.jit.ScriptModule, bad: Tensor) -> None:
    with pytest.raises(torch.jit.Error, match="frames must"):
        frozen(bad)


def test_saved_graph_answers_like_the_module(
    frozen: torch.jit.ScriptModule, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(to_bytes(frozen))
    loaded = load_graph(path, hashlib.sha256(path.read_bytes()).hexdigest())
    image = frames(1, 1, 96, 128)
    with torch.inference_mode():
        expected = detector()(image)
        assert torch.allclose(loaded(image)[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("tiles", [1, 2, 3])
@pytest.mark.parametrize("shape", [(96, 128), (480, 640), (300, 128), (96, 500)])
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_every_corner_is_seen(tiles: int, shape: tuple[int, int], corner: tuple[int, int]) -> None:
    net = Detector(Brightness(), InputForm.of_frames(96, 128, changed(SMALL, tiles=tiles)), 0.0)
    image = torch.zeros(1, 1, *shape, dtype=torch.uint8)
    rows, columns = max(1, shape[0] // 12), max(1, shape[1] // 12)
    top = slice(0, rows) if corner[0] == 0 else slice(-rows, None)
    left = slice(0, columns) if corner[1] == 0 else slice(-columns, None)
    image[:, :, top, left] = 255
    score, anomaly_map = net(image)
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape[1:])
    assert score > 100
    # The map covers the frame, whatever its aspect, so the spot lies at the map's own corner.
    assert abs(row - corner[0] % anomaly_map.shape[1]) < 0.13 * anomaly_map.shape[1] + 1
    assert abs(column - corner[1] % anomaly_map.shape[2]) < 0.13 * anomaly_map.shape[2] + 1


def test_sides_fit_the_strides() -> None:
    wide = changed(PAPER, crop_from=None)
    form = InputForm.of_frames(288, 288, wide)
    assert (form.height, form.width, form.stride) == (288, 288, 8)
    with pytest.raises(ConfigError, match="input size 288: with tiles, a multiple of 64"):
        InputForm.of_frames(288, 288, changed(wide, tiles=2))


def test_letterbox_keeps_the_aspect() -> None:
    net = Detector(Brightness(), FORM, 0.0)
    assert net.content(960, 1280) == (96, 128)
    assert net.content(961, 1279) == (96, 128)
    assert net.content(960, 2560) == (48, 128)
    assert net.content(1920, 1280) == (96, 64)


def test_padding_has_no_score() -> None:
    net = Detector(Brightness(), FORM, 1.0)
    _, anomaly_map = net(torch.full((1, 1, 96, 512), 7, dtype=torch.uint8))
    assert anomaly_map.shape == (1, 6, 32)
    assert torch.allclose(anomaly_map, torch.tensor(7.0))


def test_a_cut_out_middle_keeps_its_place_on_the_map() -> None:
    preset = changed(PAPER, input_size=96, crop_from=128, levels=(4, 16))
    net = Detector(Brightness(), InputForm.of_frames(256, 512, preset), 0.0)
    image = torch.zeros(1, 1, 256, 512, dtype=torch.uint8)
    image[:, :, 128:160, 256:288] = 200
    image[:, :, :8, :8] = 255  # outside of what is seen
    score, anomaly_map = net(image)
    assert anomaly_map.shape == (1, 32, 64)
    assert float(score) == pytest.approx(200, abs=1)
    assert (anomaly_map[0, 16:20, 32:36] > 150).all()
    assert float(anomaly_map.sum()) < 200 * 25


def test_smoothing_keeps_the_mean_and_lowers_a_lone_peak() -> None:
    image = torch.zeros(1, 1, 96, 128, dtype=torch.uint8)
    image[:, :, 48:52, 64:68] = 200
    sharp, soft = Detector(Brightness(), FORM, 0.0)(image), Detector(Brightness(), FORM, 1.5)(image)
    assert soft[0] < 0.2 * sharp[0]
    assert torch.allclose(soft[1].sum(), sharp[1].sum(), rtol=1e-4)


def test_scale_is_linear_and_not_clamped() -> None:
    net = Detector(Brightness(), FORM, 0.0)
    net.zero.fill_(50.0)
    net.gain.fill_(0.01)
    for grey, score in [(50, 0.0), (150, 1.0), (250, 2.0), (0, -0.5)]:
        found, _ = net(torch.full((1, 1, 96, 128), grey, dtype=torch.uint8))
        assert float(found) == pytest.approx(score, abs=1e-5)


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def test_units_follow_the_sheet() -> None:
    def names(*stems: str) -> list[str]:
        return list(group_by_unit([Path(f"{stem}.png") for stem in stems]))

    assert names("s-1-4_left_1", "s-1-4_left_2", "s-1-5_left_1") == ["s-1-4", "s-1-5"]
    assert names("000", "001") == ["000", "001"]
    assert names("img_001", "img_002") == ["img_001", "img_002"]
    assert names("s-1-4_left_1", "s-1-4_left_2") == ["s-1-4"]


def tree(folder: Path, sheets: int) -> TrainingImages:
    grey = np.zeros((8, 8), np.uint8)
    for sheet in range(sheets):
        for shot in range(3):
            write(folder / "train" / "good" / f"s-1-{sheet}_a_{shot}.png", grey)
    return from_mvtec(folder)


def test_a_fifth_of_the_sheets_is_held_out(tmp_path: Path) -> None:
    images = tree(tmp_path, 10)
    (part,) = hold_out(images, seed=0)
    assert [len(files) for files in part.units.values()] == [3, 3]
    assert hold_out(images, seed=0) == [part]
    assert hold_out(images, seed=1) != [part]
    assert len(images.draw(4, seed=1).files) == 12


def test_of_few_sheets_every_one_is_held_out_once(tmp_path: Path) -> None:
    parts = hold_out(tree(tmp_path, 7), seed=0)
    assert len(parts) == 5
    units = [unit for part in parts for unit in part.units]
    assert sorted(units) == sorted({f"s-1-{sheet}" for sheet in range(7)})


def test_one_unit_is_too_few(tmp_path: Path) -> None:
    write(tmp_path / "train" / "good" / "0.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(DatasetError, match="at least 2"):
        hold_out(from_mvtec(tmp_path), seed=0)


def test_folders_without_good_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder train/good"):
        from_mvtec(tmp_path)
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no image in it"):
        from_mvtec(tmp_path)


def test_images_that_cannot_be_used_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = write(tmp_path / "a.png", noise).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"hello")
    jpeg = write(tmp_path / "a.jpg", noise).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    thumbnail = b"Exif\0\0" + jpeg
    (tmp_path / "exif.jpg").write_bytes(
        jpeg[:2] + b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail + jpeg[2:-9]
    )
    (tmp_path / "cut.bmp").write_bytes(write(tmp_path / "a.bmp", noise).read_bytes()[:999])
    write(tmp_path / "deep.png", np.zeros((8, 8), np.uint16))
    write(tmp_path / "glass.png", np.zeros((8, 8, 4), np.uint8))
    problems = {
        "cut.png": "cut short",
        "cut.jpg": "cut short",
        "exif.jpg": "cut short",
        "cut.bmp": "not a readable image",
        "none.png": "empty file",
        "text.png": "not a readable image",
        "deep.png": "16 bits",
        "glass.png": "transparent",
        "gone.png": "no such file",
    }
    for name, problem in problems.items():
        with pytest.raises(DatasetError, match=f"{name}: .*{problem}"):
            read_image(tmp_path / name)
    assert capfd.readouterr().err == "", "no word of the decoder's own"


def test_colour_is_read_as_rgb(tmp_path: Path) -> None:
    blue_in_bgr = np.zeros((4, 4, 3), np.uint8)
    blue_in_bgr[..., 0] = 255
    image = read_image(write(tmp_path / "blue.png", blue_in_bgr)).image
    assert image[0, 0].tolist() == [0, 0, 255]


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "a.png", np.full((4, 4, 4), 255, np.uint8))).image
    assert image.shape == (4, 4, 3)


def test_other_forms_of_eight_bits_are_read_as_what_they_show(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    grey = np.array([[0, 255, 255]], np.uint8)
    Pillow.fromarray(colours).convert("P", palette=Pillow.Palette.ADAPTIVE).save(tmp_path / "p.png")
    Pillow.fromarray(grey).convert("1").save(tmp_path / "bits.png")
    Pillow.fromarray(grey).convert("LA").save(tmp_path / "opaque.png")
    assert np.array_equal(read_image(tmp_path / "p.png").image, colours)
    assert np.array_equal(read_image(tmp_path / "bits.png").image, grey)
    assert np.array_equal(read_image(tmp_path / "opaque.png").image, np.dstack([grey] * 3))


def good_tree(folder: Path, *pictures: np.ndarray) -> TrainingImages:
    for i, picture in enumerate(pictures):
        write(folder / "train" / "good" / f"{i}.png", picture)
    return from_mvtec(folder)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [((8, 9), "0.png has 8x8 pixels, .*1.png has 9x8"), ((8, 8, 3), "0.png is grey, .*1.png is c")],
)
def test_images_that_differ_in_size_or_colour_are_refused(
    tmp_path: Path, shape: tuple[int, ...], problem: str
) -> None:
    with pytest.raises(DatasetError, match=problem):
        Reader(good_tree(tmp_path, noise(0, 8, 8), noise(1, *shape)))


def test_images_may_differ_in_size_by_a_tenth(tmp_path: Path) -> None:
    images = good_tree(tmp_path, noise(0, 50, 40), noise(1, 45, 44), noise(2, 55, 36))
    reader = Reader(images)
    assert [reader.read(file).shape for file in images.files] == [(50, 40), (45, 44), (55, 36)]
    write(tmp_path / "train" / "good" / "3.png", noise(3, 50, 45))
    with pytest.raises(DatasetError, match=r"3\.png has 45x50: sizes may differ by a tenth"):
        Reader(from_mvtec(tmp_path))


def test_an_image_is_decoded_again_where_memory_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = good_tree(tmp_path, noise(0, 8, 8), noise(1, 8, 8))
    first, second = images.files
    monkeypatch.setattr("station.learn.images.KEPT_BYTES", 64)
    reader = Reader(images)
    write(first, noise(2, 8, 8))
    assert np.array_equal(reader.read(first), noise(0, 8, 8)), "kept as it was checked"
    assert np.array_equal(reader.read(second), noise(1, 8, 8))
    write(second, noise(3, 8, 8))
    with pytest.raises(DatasetError, match=r"1\.png: changed during training"):
        reader.read(second)
