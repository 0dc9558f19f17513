"""Links detected faces to tracks (one person in one shot, with a face for every frame) and splits tracks into clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..face.detect import Face
from ..face.masks import Box
from .footage import Analysis

MIN_OVERLAP = 0.3  #: smallest intersection over union of a person's boxes in successive detections
MAX_MISSED = 1  #: number of successive detections in which a face may be missing


@dataclass(frozen=True)
class Track:
    """A face from frame `start` to `end` (exclusive); `faces`: one for each frame, or None without a detector."""

    start: int
    end: int
    faces: Sequence[Face] | None

    def part(self, start: int, end: int) -> Track:
        """The part of the track from frame `start` to `end` (exclusive) of the video."""
        faces = None if self.faces is None else self.faces[start - self.start : end - self.start]
        return Track(start, end, faces)


def find_tracks(analysis: Analysis) -> list[Track]:
    """All tracks of a video, in the order of the shots; without a detector, each shot is a track."""
    tracks = []
    for start, end in analysis.shots():
        if analysis.faces is None:
            tracks.append(Track(start, end, None))
        else:
            found = [(index, faces) for index, faces in sorted(analysis.faces.items()) if start <= index < end]
            tracks += [_filled(chain) for chain in _chains(found)]
    return tracks


def cut_up(track: Track, shortest: int, longest: int) -> list[Track]:
    """Split a track into parts of equal length, at least `shortest` and at most `longest` frames.

    A track whose length allows no such parts is cut into parts of `longest` frames, and the rest is left out.
    """
    length = track.end - track.start
    count = -(-length // longest)
    if count * shortest > length:
        count -= 1
        length = count * longest
    edges = [track.start + round(i * length / max(1, count)) for i in range(count + 1)]
    return [track.part(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box that contains all boxes."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return Box(min(x0), min(y0), max(x1), max(y1))


def overlap(one: Box, two: Box) -> float:
    """Intersection over union, 0..1."""
    width = min(one.x1, two.x1) - max(one.x0, two.x0)
    height = min(one.y1, two.y1) - max(one.y0, two.y0)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (one.width * one.height + two.width * two.height - common)


_Chain = list[tuple[int, Face]]


def _chains(found: list[tuple[int, list[Face]]]) -> list[_Chain]:
    """Link the detections of a shot, (frame, faces), to one list per person, the best overlaps first."""
    done: list[_Chain] = []
    open_: list[tuple[_Chain, int]] = []  # with the number of detections in a row that missed it
    for index, faces in found:
        pairs = [(c, f) for c in range(len(open_)) for f in range(len(faces))]
        values = [overlap(open_[c][0][-1][1].box, faces[f].box) for c, f in pairs]
        linked: dict[int, int] = {}
        for value, (c, f) in sorted(zip(values, pairs, strict=True), reverse=True):
            if value >= MIN_OVERLAP and c not in linked and f not in linked.values():
                linked[c] = f
        still = []
        for c, (chain, missed) in enumerate(open_):
            if c in linked:
                chain.append((index, faces[linked[c]]))
                still.append((chain, 0))
            elif missed < MAX_MISSED:
                still.append((chain, missed + 1))
            else:
                done.append(chain)
        new = [face for f, face in enumerate(faces) if f not in linked.values()]
        open_ = still + [([(index, face)], 0) for face in new]
    return sorted(done + [chain for chain, _ in open_], key=lambda chain: chain[0][0])


def _filled(chain: _Chain) -> Track:
    """A track with faces between detections by linear interpolation."""
    known = np.array([index for index, _ in chain])
    values = np.array([[*face.box, *face.lips, *np.ravel(face.points)] for _, face in chain])
    frames = np.arange(known[0], known[-1] + 1)
    between = np.stack([np.interp(frames, known, column) for column in values.T], axis=1)
    faces = [
        Face(Box(*row[:4].tolist()), Box(*row[4:8].tolist()), tuple(map(tuple, row[8:].reshape(-1, 2).tolist())))
        for row in between
    ]
    return Track(int(known[0]), int(known[-1]) + 1, faces)
