"""Images on disk: what is read is what is there, and what can't be read is said with its path."""

import hashlib
import io
import os
import pickle
import struct

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from genkl import Kind, NoisyDataset, Truth
from genkl.data.base import Split, make_split
from genkl.data.images import (
    BlendedImages,
    ImageError,
    ImageFiles,
    ImageTensor,
    JoinedImages,
    _as_rgb,
    decode_image,
)
from genkl.data.planting import plant_noise
from genkl.report.page import _thumbnail


def png(value: int, size=(5, 4), mode="RGB") -> bytes:
    """A plain image, size is (width, height)."""
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def files(tmp_path) -> ImageFiles:
    names = []
    for value in range(8):
        names.append(f"{value % 2}/image,{value} ü.png")
        (tmp_path / names[-1]).parent.mkdir(exist_ok=True)
        (tmp_path / names[-1]).write_bytes(png(10 * value, (5 + value, 4)))
    return ImageFiles(tmp_path, names)


def test_an_image_is_read_when_it_is_asked_for(files):
    assert len(files) == 8
    assert files.read(3).shape == (3, 4, 8)
    assert (files.read(3) == 30).all()
    chosen = files.take(np.array([5, 1])).take(torch.tensor([1, 0, 0]))
    assert [int(chosen.read(row)[0, 0, 0]) for row in range(3)] == [10, 50, 50]
    assert chosen.path(1).name == "image,5 ü.png"
    assert chosen.names is files.names  # one list of names, however many splits


def test_names_may_come_as_an_arrow_column(files, tmp_path):
    column = pa.chunked_array([files.names[:3], files.names[3:]])
    assert (ImageFiles(tmp_path, column).read(7) == 70).all()


def test_grey_palette_transparent_and_rotated_images_become_upright_rgb():
    assert decode_image(png(7, mode="L"), "grey").unique().tolist() == [7]
    assert decode_image(png(9, mode="RGBA"), "transparent").shape == (3, 4, 5)
    palette = io.BytesIO()
    Image.new("RGB", (5, 4), (200, 0, 0)).quantize(4).save(palette, "GIF")
    assert decode_image(palette.getvalue(), "palette")[:, 0, 0].tolist() == [200, 0, 0]
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (40, 20)).save(turned, "JPEG", exif=exif)
    assert decode_image(turned.getvalue(), "turned").shape == (3, 40, 20)


def encoded(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


GREYS = np.array([[0, 257 * 50, 257 * 100, 65535]], np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_grey_of_16_bits_is_scaled(kind):
    image = decode_image(encoded(Image.fromarray(GREYS), kind), "scan")
    assert image[:, 0].tolist() == [[0, 50, 100, 255]] * 3


@pytest.mark.parametrize(
    ("tags", "expected"), [({262: 0}, [255, 205, 155, 0]), ({258: 12, 262: 1}, [0, 1, 255])]
)
def test_grey_of_a_tiff_is_scaled_by_its_tags(tags, expected):
    """White may be zero, and there may be 12 bits."""
    greys = (
        GREYS if 258 not in tags else np.frombuffer(b"\x00\x00\x10\xff\xf0\x00", np.uint16)[None]
    )
    content = bytearray(encoded(Image.fromarray(greys), "TIFF"))
    count, *_ = struct.unpack_from("<H", content, at := struct.unpack_from("<I", content, 4)[0])
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag = struct.unpack_from("<H", content, entry)[0]
        if tag in tags:
            struct.pack_into("<H", content, entry + 8, tags[tag])
    image = decode_image(bytes(content), "scan.tif")
    assert image[0, 0].tolist()[: len(expected)] == expected


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_whose_white_nobody_states_are_refused(kind):
    content = encoded(Image.fromarray(GREYS.astype(kind)), "TIFF")
    with pytest.raises(ImageError, match=r"^a\.tif: 32 bits a pixel \(mode [IF]\).*8 or 16"):
        decode_image(content, "a.tif")


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_becomes_rgb(mode):
    if mode in ("I", "F"):
        return  # above
    shown = _as_rgb(Image.new(mode, (3, 2)))
    assert (shown.mode, shown.size) == ("RGB", (3, 2))


def test_what_is_transparent_lies_on_white():
    white = [255, 255, 255]
    for clear in (Image.new("RGBA", (2, 2), (90, 0, 0, 0)), Image.new("LA", (2, 2), (90, 0))):
        assert decode_image(encoded(clear), "clear")[:, 0, 0].tolist() == white
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert decode_image(encoded(half), "half")[:, 0, 0].tolist() == [127] * 3
    for mode, key in (("L", 7), ("RGB", (7, 8, 9)), ("P", 7), ("I;16", 7)):
        image = Image.new("L" if mode == "P" else mode, (2, 2), key).convert(mode)
        content = encoded(image, transparency=key)
        assert decode_image(content, mode)[:, 0, 0].tolist() == white


def odd_exif(tag: int, kind: int, value: bytes) -> bytes:
    """EXIF with an upright camera, and a tag that no writer should write."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (tag, kind, 1, struct.pack("<I", 38))]
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + table + bytes(4) + value


@pytest.mark.parametrize(
    "exif",
    [
        odd_exif(0x011A, 5, struct.pack("<ii", -72, 1)),  # a negative rational
        odd_exif(0x011A, 2, b"seventy-two\0"),  # a text
        odd_exif(0x011A, 10, struct.pack("<ii", -72, 0)),
        odd_exif(0x8769, 4, b"\xff" * 8),
        b"Exif\0\0II*\0",
        b"Exif\0\0nonsense",
    ],
)
def test_odd_exif_does_not_stop_a_good_photograph(tmp_path, exif):
    """Only the orientation matters, also where a page draws thumbnails of large files."""
    photo = Image.new("RGB", (400, 200), (10, 200, 30))
    (tmp_path / "a.jpg").write_bytes(encoded(photo, "JPEG", exif=exif))
    files = ImageFiles(tmp_path, ["a.jpg"])
    is_upright = b"\x12\x01" in exif
    assert files.read(0).shape == ((3, 400, 200) if is_upright else (3, 200, 400))
    with Image.open(io.BytesIO(_thumbnail(files, 0))) as thumbnail:
        assert thumbnail.size == ((64, 128) if is_upright else (128, 64))


def test_every_orientation_is_turned_upright():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8))
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(photo, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
        assert (decode_image(content, "turned").permute(1, 2, 0).numpy() == expected).all()


def test_a_large_text_in_a_png_does_not_make_it_damaged():
    text = PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    text.add_itxt("also", "x" * 3_000_000, zip=True)
    content = encoded(Image.new("RGB", (5, 4), (1, 2, 3)), pnginfo=text, icc_profile=bytes(2**21))
    assert decode_image(content, "x.png")[:, 0, 0].tolist() == [1, 2, 3]


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    (tmp_path / "y.jpg").mkdir()
    files = ImageFiles(tmp_path, ["x.jpg", "y.jpg", "a" * 300 + ".jpg", "a\0.jpg"])
    for row in range(4):
        with pytest.raises(ImageError, match=r"no file|no such file|too long|null byte"):
            files.read(row)


def noise_jpeg() -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "this is not an image"),
        (noise_jpeg()[:-700], "damaged"),
        (png(3)[:-30], "damaged"),
        (None, "there is no such file"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_path(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        ImageFiles(tmp_path, ["a.jpg"]).read(0)
    assert str(tmp_path / "a.jpg") in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))  # as from a worker process
    assert (again.name, again.reason) == (caught.value.name, caught.value.reason)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    with pytest.raises(ImageError, match="too many pixels"):
        decode_image(png(1), "bomb.png")


def test_fingerprints_follow_content_not_name(files, tmp_path):
    (tmp_path / "copy.png").write_bytes(files.encoded(2))
    copy = ImageFiles(tmp_path, ["copy.png"])
    assert copy.fingerprint(0) == files.fingerprint(2) != files.fingerprint(3)
    (tmp_path / "photo.jpg").write_bytes(noise_jpeg())
    photo = ImageFiles(tmp_path, ["photo.jpg"])  # as in the caches of before
    assert photo.fingerprint(0) == hashlib.blake2b(photo.encoded(0), digest_size=16).digest()
    pixels = ImageTensor(torch.arange(48, dtype=torch.uint8).reshape(2, 1, 6, 4))
    turned = ImageTensor(pixels.images.reshape(2, 1, 4, 6))
    assert pixels.fingerprint(0) != pixels.fingerprint(1)
    assert pixels.fingerprint(0) != turned.fingerprint(0)


def test_collections_can_be_joined_chosen_from_and_blended(files):
    memory = ImageTensor(torch.full((3, 1, 9, 9), 0.4))
    joined = JoinedImages([files, memory])
    assert len(joined) == 11
    assert (joined.read(9) == 102).all()
    assert joined.name(8) == "image 0 in memory"  # the first of the second
    assert joined.name(7) == files.name(7)
    chosen = joined.take([10, 7]).take([1, 0])
    assert "image,7" in chosen.name(0)
    assert chosen.fingerprint(1) == memory.fingerprint(2)
    blends = BlendedImages(files.take([1, 2]), chosen)
    assert blends.read(0).shape == (3, 4, 6)  # the size of the first
    assert (blends.read(0) == 40).all()
    assert (blends.take([1]).read(0) == 61).all()
    assert blends.fingerprint(0) != BlendedImages(chosen, files.take([1, 2])).fingerprint(0)


def test_noise_is_planted_into_files_without_reading_them(files, tmp_path):
    nothing = make_split(files.take([]), [], [])
    labels = np.arange(8) % 2
    noisy = make_split(files, labels, np.arange(8))
    dataset = NoisyDataset("toy", ("a", "b"), nothing, noisy, nothing, nothing)
    truth = Truth(np.full(8, Kind.CORRECT), labels, "by hand", np.arange(8))
    strangers = ImageFiles(tmp_path / "elsewhere", ["x.jpg", "y.jpg"])  # never opened
    options = {"ood": strangers, "ood_share": 0.25, "ambiguous_share": 0.125}
    noisier, told = plant_noise(dataset, truth, ood_labels="random", **options)
    row = np.flatnonzero(told.kinds == Kind.OOD)[0]
    assert "elsewhere" in noisier.noisy.inputs.name(row)
    blend = np.flatnonzero(told.kinds == Kind.AMBIGUOUS)[0]
    assert noisier.noisy.inputs.read(blend).float().mean() % 5 == 0
    with pytest.raises(ImageError, match=r"x\.jpg|y\.jpg"):  # the nearest class takes a look
        plant_noise(dataset, truth, **options)


def test_images_have_no_common_shape_to_build_a_network_for(files):
    nothing = make_split(files.take([]), [], [])
    dataset = NoisyDataset(
        "toy", ("a", "b"), nothing, make_split(files, [0] * 8, range(8)), nothing, nothing
    )
    with pytest.raises(TypeError, match=r"genkl\.featurize"):
        _ = dataset.input_shape
    with pytest.raises(ValueError, match="the clean split of toy is empty"):
        dataset.require("clean", "test")


def test_truth_follows_instances_that_were_dropped():
    truth = Truth(np.array([0, 1, 3]), np.array([4, 5, -1]), "by hand", np.array([30, 10, 20]))
    left = Split(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), torch.tensor([20, 30]))
    assert truth.match(left).kinds.tolist() == [3, 0]
    with pytest.raises(ValueError, match="nothing is known about instance 7"):
        truth.match(Split(left.inputs, left.labels, torch.tensor([20, 7])))
    with pytest.raises(ValueError, match="holds no ids"):
        Truth(truth.kinds, truth.labels, "by hand").match(left)
