"""Pictures as encoders see them: the processors' pixels, every odd file, regions."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from data_pipeline.pictures import images
from data_pipeline.pictures.decoding import Decoder, Plan, Wanted, decode
from tests.support.commands import ROOT
from tests.support.fixtures import refusal
from tests.support.odd_pictures import KillsItsProcess, photo, write_all

PROCESSORS = {
    "CLIP": CLIPImageProcessorPil(),
    "CLIP, padded": CLIPImageProcessorPil(
        size={"shortest_edge": 33}, crop_size={"height": 50, "width": 41}
    ),
    "ResNet": ConvNextImageProcessorPil(size={"shortest_edge": 224}, crop_pct=0.875),
    "ResNet, 384": ConvNextImageProcessorPil(size={"shortest_edge": 384}),
    "ViT": ViTImageProcessorPil(),
}
SIZES = [(300, 200), (201, 333), (64, 64), (224, 224), (1000, 31), (9, 8)]


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_pixel_for_pixel(name: str) -> None:
    """Ours is theirs before rescaling, whatever the shape; theirs is asked without the rest."""
    theirs = PROCESSORS[name]
    recipe = images.processor(theirs.to_dict(), "here")
    for width, height in SIZES:
        noise = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(noise)
        wanted = theirs(image, do_rescale=False, do_normalize=False)["pixel_values"][0]
        np.testing.assert_array_equal(recipe(image), np.moveaxis(np.asarray(wanted), 0, -1))


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [("CLIP", "CLIP", {"crop_size": 224}), ("ResNet", "ConvNext", {"crop_pct": 0.875})],
)
def test_the_form_of_old_checkpoints(name: str, kind: str, fields: dict[str, Any]) -> None:
    old = {"feature_extractor_type": f"{kind}FeatureExtractor", "size": 224, "resample": 3}
    new = images.processor(PROCESSORS[name].to_dict(), "here")
    assert images.processor(old | fields, "here") == new


def test_processors_that_are_refused() -> None:
    line = refusal(lambda: images.processor({"image_processor_type": "SamImageProcessor"}, "here"))
    assert "here: image processor 'Sam'" in line
    assert "paper" in line
    odd = {"image_processor_type": "CLIPImageProcessor", "size": "large"}
    assert "sizes make no sense" in refusal(lambda: images.processor(odd, "here"))


def test_the_papers_resize_takes_the_whole_picture() -> None:
    image = photo(60, 20)
    wanted = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images.plain(32)(image), wanted)


def test_odd_files(tmp_path: Path) -> None:
    """Each is read as it is meant or masked with its reason; none raises, none is blank."""
    expected = write_all(tmp_path)
    plan = Plan({"look": images.plain(16)})
    found = {name: decode(plan, Wanted(str(tmp_path / name))) for name in expected}
    assert {name: images.STATUSES[one.status] for name, one in found.items()} == expected
    for name, one in found.items():
        read = expected[name].startswith("read")
        assert read == (one.status < images.READ) == ("look" in one.looks), name
        if read:
            assert one.looks["look"].std() > 5, f"{name} came out blank"


def test_odd_files_show_what_they_should(tmp_path: Path) -> None:
    write_all(tmp_path)
    upright = np.asarray(photo(), np.float32)

    def pixels(name: str) -> np.ndarray:
        image, _ = images.open_picture(tmp_path / name)
        assert image is not None
        assert image.mode == "RGB"
        return np.asarray(image, np.float32)

    np.testing.assert_allclose(pixels("turned.jpg"), np.rot90(upright, -1), atol=25)
    np.testing.assert_allclose(pixels("cmyk.jpg"), upright, atol=25)
    np.testing.assert_allclose(pixels("moving.gif"), upright, atol=40)  # 256 colours
    np.testing.assert_allclose(pixels("transparent.png"), (upright + 255) / 2, atol=2)
    deep = pixels("deep.png")
    assert np.ptp(deep) > 200  # a cast to 8 bits would clip it to white
    assert (np.diff(deep[:, :, 0].ravel()) >= 0).all()


def test_a_thin_strip_does_not_grow_without_bound() -> None:
    """8 x 100,000 would become 224 x 2,800,000 before the middle is cut out."""
    recipe = images.processor(PROCESSORS["CLIP"].to_dict(), "here")
    assert recipe.scaled(8, 100_000) == (224, 2_800_000)


def test_a_thin_strip_is_masked(tmp_path: Path) -> None:
    photo(8, 20_000).save(tmp_path / "strip.png")
    plan = Plan(
        {"clip": images.processor(PROCESSORS["CLIP"].to_dict(), "here")},
        limits=images.Limits(10**6),
    )
    status = decode(plan, Wanted(str(tmp_path / "strip.png"))).status
    assert images.STATUSES[status] == "masked: too large"


SIDE = 3000  # of pictures whose memory is measured


def large() -> dict[str, tuple[Image.Image, dict[str, Any]]]:
    """Pictures of every way of storing them: file name -> picture, and how it is saved."""
    rgb = photo(SIDE, SIDE)
    grey = rgb.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    turned = Image.Exif()
    turned[0x0112] = 6
    whole: dict[str, Any] = {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30}
    return {
        "plain.png": (rgb, {"compress_level": 1}),
        "deep.png": (deep, {"compress_level": 1}),
        "clear.png": (rgb.convert("RGBA"), {"compress_level": 1}),
        "palette.png": (rgb.quantize(16), {"compress_level": 1}),
        "turned.jpg": (rgb, {"exif": turned}),
        "progressive.jpg": (rgb.convert("CMYK"), {"progressive": True, "subsampling": 0}),
        "lossy.webp": (rgb, {"quality": 30, "method": 0}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True, "quality": 0, "method": 0}),
        "a.avif": (rgb.convert("RGBA"), {"speed": 10, "subsampling": "4:4:4"}),
        "a.jp2": (rgb.convert("RGBA"), {}),
        "strip.tif": (rgb, whole),
        "numbers.tif": (Image.fromarray(np.asarray(grey).astype(np.int32) * 9000), {}),
        "a.gif": (rgb.quantize(64), {}),
    }


def test_decoding_takes_no_more_memory_than_is_stated(tmp_path: Path) -> None:
    """Measured in a process that has decoded before; what takes more than allowed is masked
    without being decoded."""
    for name, (picture, options) in large().items():
        picture.save(tmp_path / name, **options)
    photo().save(tmp_path / "warm", "PNG")
    program = """
import json, sys
from pathlib import Path
from PIL import Image
from data_pipeline.pictures import images
from data_pipeline.pictures.decoding import Plan, Wanted, decode

def highest():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

folder, found = Path(sys.argv[1]), {}
looks = {"look": images.plain(64)}
decode(Plan(looks), Wanted(str(folder / "warm")))
for path in sorted(folder.glob("*.*")):
    with Image.open(path) as file:
        cost = images.cost(file)
    wanted = Wanted(str(path))
    Path("/proc/self/clear_refs").write_text("5")
    before = highest()
    masked = decode(Plan(looks, limits=images.Limits(max_bytes=cost - 1)), wanted).status
    untouched = highest() - before
    read = decode(Plan(looks, limits=images.Limits(max_bytes=cost)), wanted).status
    found[path.name] = [cost, highest() - before, untouched, masked, read]
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 13
    slack = 16e6  # bands, and what libraries load at first use
    for name, (cost, peak, untouched, masked, read) in found.items():
        assert peak <= cost + slack, name
        assert cost <= 25 * SIDE**2, name
        assert untouched < slack, name
        assert masked == images.TOO_LARGE, name
        assert read < images.READ, name


def test_bands_are_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A picture converted in many bands is the one converted at once, whatever its mode."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 500, (40, 30)).astype(np.float32)
    pictures = [
        *(photo(30, 40).convert(mode) for mode in ("RGBA", "LA", "L", "CMYK", "1", "P")),
        Image.fromarray(values),
        Image.fromarray((values * 300).astype(np.int32)),
        Image.fromarray(rng.integers(0, 65536, (40, 30)).astype(np.uint16)),
    ]
    whole = [images._to_rgb(picture) for picture in pictures]
    monkeypatch.setattr(images, "BAND_PIXELS", 70)
    for picture, expected in zip(pictures, whole, strict=True):
        assert expected.mode == "RGB"
        np.testing.assert_array_equal(images._to_rgb(picture), expected)


def test_regions_come_from_the_original(tmp_path: Path) -> None:
    """Boxes count pixels of the upright picture; those outside are dropped, the rest clipped."""
    image = photo(100, 80)
    image.save(tmp_path / "a.png")
    boxes = np.array([[10, 20, 50, 60], [90, 70, 140, 95], [200, 0, 300, 40], [5, 5, 5.4, 9]])
    plan = Plan({}, crop=images.plain(16))
    one = decode(plan, Wanted(str(tmp_path / "a.png"), boxes))
    assert one.kept is not None
    assert one.crops is not None
    assert one.kept.tolist() == [0, 1]
    for crop, box in zip(one.crops, ((10, 20, 50, 60), (90, 70, 100, 80)), strict=True):
        wanted = image.crop(box).resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(crop, np.asarray(wanted))


def test_processes_decode_in_order_and_survive_a_crash(tmp_path: Path) -> None:
    """A file that kills the process that opens it is masked; its neighbours are not."""
    names = [f"{i}.png" for i in range(20)]
    for i, name in enumerate(names):
        photo(seed=i).save(tmp_path / name)
    wanted = [Wanted(str(tmp_path / name)) for name in names]
    plan = Plan({"look": images.plain(8)})
    here = [decode(plan, one).looks["look"] for one in wanted]
    with Decoder(plan, workers=2) as decoder:
        there = [one.looks["look"] for one in decoder.start(wanted)]
        np.testing.assert_array_equal(there, here)
        killed = list(decoder.start([*wanted[:3], KillsItsProcess("x.png"), *wanted[3:]]))
        again = list(decoder.start(wanted))
    assert images.STATUSES[killed[3].status] == "masked: cut or damaged"
    np.testing.assert_array_equal([one.looks["look"] for one in [*killed[:3], *killed[4:]]], here)
    np.testing.assert_array_equal([one.looks["look"] for one in again], here)


def test_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    """Also where that is killed and can tell them nothing."""
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from data_pipeline.pictures.decoding import Decoder, Plan\n"
        "if __name__ == '__main__':\n"
        "    with Decoder(Plan({}), workers=2):\n"
        "        print(*(one.pid for one in multiprocessing.active_children()), flush=True)\n"
        "        time.sleep(200)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        began = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert began
    until = time.monotonic() + 100
    while any(map(_runs, began)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_runs, began))


def _runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_script_without_a_guard_decodes_by_itself(tmp_path: Path) -> None:
    """Where spawning fails, as in a user's own unguarded script, nothing is masked for it."""
    photo().save(tmp_path / "a.png")
    script = tmp_path / "script.py"
    script.write_text(
        "from data_pipeline.pictures import images\n"
        "from data_pipeline.pictures.decoding import Decoder, Plan, Wanted\n"
        "with Decoder(Plan({'look': images.plain(8)}), workers=2) as decoder:\n"
        f"    wanted = [Wanted({str(tmp_path / 'a.png')!r})] * 9\n"
        "    print([one.status for one in decoder.start(wanted)])\n"
    )
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.strip() == str([0] * 9)
    assert "decoding them here" in result.stderr
