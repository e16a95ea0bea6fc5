"""Videos for the tests, small and without loss."""

import numpy as np


def film(frames, height=48, width=64):
    """Noise that differs from frame to frame, uint8 ``(frames, height, width, 3)``."""
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_video(path, images):
    """Write images to a video file in a codec that keeps every value."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "bgr0"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_boxes(path, rows):
    """Write rows of frame, id, left, top, width, height."""
    path.write_text("\n".join(",".join(map(str, row)) + ",1,-1,-1,-1" for row in rows) + "\n")
    return path
