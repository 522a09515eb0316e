"""When each frame of a video is shown, from the container's index or from its packets; nothing is
decoded.
"""

from __future__ import annotations

from array import array

import av
import numpy as np
import numpy.typing as npt
from av.container.input import InputContainer
from av.video.stream import VideoStream

MAX_LEADING = 16
"""Most frames between two that a codec's B frames depend on."""


class VideoError(RuntimeError):
    """A video, or a frame of it, that cannot be read."""


class Timeline:
    """When each frame is shown, in time base units, and where decoding can begin."""

    def __init__(
        self,
        shown: range | npt.NDArray[np.int64],
        keys: npt.NDArray[np.int64],
        max_leading: int = 0,
    ) -> None:
        """`max_leading`: how many frames later than `keys` says a key frame may be shown."""
        self.shown = shown
        self.keys = keys
        self.max_leading = max_leading

    def key_before(self, number: int) -> int:
        """The last key frame from which `number` surely decodes whole."""
        found = np.searchsorted(self.keys, number - self.max_leading, "right") - 1
        return int(self.keys[found]) if found >= 0 else 0

    @property
    def mean_step(self) -> float:
        """Time base units from one frame to the next, on average; 0 where there is but one."""
        steps = len(self.shown) - 1
        return (int(self.shown[-1]) - int(self.shown[0])) / steps if steps else 0.0

    @classmethod
    def read(cls, container: InputContainer, stream: VideoStream) -> Timeline:
        """From the container's own index where frames are evenly spaced, else by reading
        every packet.
        """
        return cls._from_index(stream) or cls.from_packets(container, stream)

    @classmethod
    def _from_index(cls, stream: VideoStream) -> Timeline | None:
        entries = stream.index_entries
        if not stream.frames or len(entries) != stream.frames or stream.start_time is None:
            return None
        step = entries[1].timestamp - entries[0].timestamp if len(entries) > 1 else 0
        if step <= 0:
            return None
        keys: list[int] = []
        expected = entries[0].timestamp
        for number, entry in enumerate(entries):
            if entry.timestamp != expected or entry.is_discard:
                return None
            expected += step
            if entry.is_keyframe:
                keys.append(number)
        start = stream.start_time
        # The index is in decoding order: frames that follow a key frame there may be shown before
        # it.
        max_leading = MAX_LEADING if stream.codec_context.has_b_frames else 0
        shown = range(start, start + step * len(entries), step)
        return cls(shown, np.array(keys, np.int64), max_leading)

    @classmethod
    def from_packets(cls, container: InputContainer, stream: VideoStream) -> Timeline:
        """From every packet of a container that was just opened; nothing is decoded."""
        times, are_keys = array("q"), bytearray()
        try:
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size and not packet.is_discard:
                    times.append(packet.pts)
                    are_keys.append(packet.is_keyframe)
        except av.FFmpegError as error:
            if not times:
                raise VideoError(f"the video cannot be read: {error.strerror}") from None
        if not times:
            raise VideoError("the video has no frames")
        shown = np.array(times, np.int64)
        order = np.argsort(shown, kind="stable")
        keys = np.flatnonzero(np.frombuffer(are_keys, np.bool_)[order])
        return cls(shown[order], keys)
