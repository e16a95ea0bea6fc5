"""Videos for the tests, small and without loss."""

import io
import wave as wavefile
from fractions import Fraction

import numpy as np


def film(frames, height=48, width=64):
    """Noise that differs from frame to frame, uint8 ``(frames, height, width, 3)``."""
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_video(path, images, codec="ffv1"):
    """Write images to a video file, by default in a codec that keeps every value."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_boxes(path, rows):
    """Write rows of frame, id, left, top, width, height."""
    path.write_text("\n".join(",".join(map(str, row)) + ",1,-1,-1,-1" for row in rows) + "\n")
    return path


def write_greys(path, codec, frames=60, step=lambda place: 1, size=(48, 64)):
    """Write a video of which frame n, from 1, is grey of 4n; ``step`` is the time from one frame to the next."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        time = 0
        for place in range(frames):
            image = np.full((*size, 3), min(4 * (place + 1), 255), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, time = time, time + 4 * step(place)
            frame.time_base = Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage_packet(path, place):
    """Overwrite a packet with zeros; gives the number of the frame that it held."""
    import av

    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.pts) for p in container.demux(container.streams.video[0]) if p.size]
    position, length, time = packets[place]
    content = bytearray(path.read_bytes())
    content[position : position + length] = bytes(length)
    path.write_bytes(content)
    return 1 + sorted(pts for _, _, pts in packets).index(time)


def rotate(path):
    """Make an MP4 file say that it is to be turned by 90 degrees."""
    upright = np.array([0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000], dtype=">i4").tobytes()
    turned = np.array([0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000], dtype=">i4").tobytes()
    content = path.read_bytes()
    track = content.index(b"tkhd")
    path.write_bytes(content[:track] + content[track:].replace(upright, turned, 1))


def cut_start(path, frames, output):
    """Copy a video so that an edit list leaves out its first frames, which lie before time zero."""
    import av

    with av.open(str(path)) as source, av.open(str(output), "w") as container:
        stream = source.streams.video[0]
        copied = container.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                shift = int(frames / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                container.mux(packet)
    return output


def raw_h264(size, frames=2):
    """A raw H.264 stream, which another of another size may follow."""
    import av

    data = io.BytesIO()
    with av.open(data, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            image = np.full((*size, 3), size[0], dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return data.getvalue()


def wave():
    """A sound file."""
    data = io.BytesIO()
    with wavefile.open(data, "w") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    return data.getvalue()
