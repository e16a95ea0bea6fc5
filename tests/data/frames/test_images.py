import io

import numpy as np
import pytest
import torch
from PIL import Image

from nl3d.data.frames import images
from nl3d.data.frames.images import decode_image, decode_with_pillow, encode_jpeg

RNG = np.random.default_rng(0)
PIXELS = np.asarray(Image.fromarray(RNG.integers(0, 256, (10, 5, 3), dtype=np.uint8)).resize((20, 40)))


def save(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def turned():
    image = Image.fromarray(PIXELS)
    exif = image.getexif()
    exif[0x0112] = 6
    return save(image, "JPEG", exif=exif)


RGB = Image.fromarray(PIXELS)
FILES = {
    "jpeg": save(RGB, "JPEG"),
    "progressive": save(RGB, "JPEG", progressive=True),
    "grey": save(RGB.convert("L"), "JPEG"),
    "cmyk": save(RGB.convert("CMYK"), "JPEG"),
    "turned": turned(),
    "png": save(RGB, "PNG"),
    "palette": save(RGB.convert("P"), "PNG"),
    "transparent": save(RGB.convert("RGBA"), "PNG"),
    "16 bit": save(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"),
    "webp": save(RGB, "WEBP", lossless=True),
}


@pytest.fixture(params=["fastest", "pillow"])
def decoder(request, monkeypatch):
    if request.param == "pillow":
        monkeypatch.setattr(images, "_fastest", lambda: decode_with_pillow)
    else:
        pytest.importorskip("torchcodec", minversion="0.16")
    return decode_image


@pytest.mark.parametrize("name", FILES)
def test_both_libraries_give_the_same_pixels(name, decoder):
    image = decoder(FILES[name])
    assert image.dtype == torch.uint8
    assert image.shape == ((3, 20, 40) if name == "turned" else (3, 40, 20))
    torch.testing.assert_close(image, decode_with_pillow(FILES[name]), atol=0, rtol=0)


@pytest.mark.parametrize("name", ["png", "webp", "transparent"])
def test_lossless_files_keep_their_pixels(name, decoder):
    np.testing.assert_array_equal(decoder(FILES[name]).permute(1, 2, 0).numpy(), PIXELS)


def test_16_bit_loses_the_low_byte(decoder):
    np.testing.assert_array_equal(decoder(FILES["16 bit"])[1].numpy(), PIXELS[..., 0])


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_a_file_cut_short_is_refused(name, decoder):
    with pytest.raises(ValueError, match=r"[Tt]runcated|incomplete|Out of bound|cannot identify image file$"):
        decoder(FILES[name][: len(FILES[name]) // 2])


@pytest.mark.parametrize("data", [b"", b"no image" * 40])
def test_other_files_are_refused(data, decoder):
    with pytest.raises(
        ValueError, match=r"^the file is empty$|^cannot identify image file$|^Unsupported or unrecognized"
    ):
        decoder(data)


def test_encode_jpeg_is_read_back():
    image = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    again = decode_image(encode_jpeg(image))
    assert (again.int() - image.int()).abs().float().mean() < 12  # colour is kept at half the resolution


def test_without_torchcodec_pillow_decodes(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    images._fastest.cache_clear()
    assert images._fastest() is decode_with_pillow
    monkeypatch.undo()
    images._fastest.cache_clear()


def test_a_small_file_that_claims_many_pixels_is_refused(decoder):
    data = save(Image.new("1", (8192, 4097)), "PNG")
    assert len(data) < 9000
    with pytest.raises(ValueError, match="an image must have at most 33554432 pixels, got 8192 x 4097"):
        decoder(data)


def test_other_kinds_of_image_are_refused(decoder):
    with pytest.raises(ValueError, match="cannot identify image file"):
        decoder(save(RGB, "BMP"))
