"""From faces found now and then to tracks: one person, one shot, a face for every frame; and tracks cut into clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..face.detect import Face
from ..face.masks import Box
from .footage import Analysis

MIN_OVERLAP = 0.3  #: intersection over union of one person's boxes in neighbouring detections
MAX_MISSED = 1  #: detections in a row in which a face may be overlooked


@dataclass(frozen=True)
class Track:
    """One face from frame `start` up to, not including, `end`; `faces`: in each of the frames, None: nobody looked."""

    start: int
    end: int
    faces: Sequence[Face] | None

    def part(self, start: int, end: int) -> Track:
        """The same face in some of the frames, counted as `start` and `end` are."""
        faces = None if self.faces is None else self.faces[start - self.start : end - self.start]
        return Track(start, end, faces)


def find_tracks(analysis: Analysis) -> list[Track]:
    """All tracks of a video, by their beginning; without a detector, each shot is one."""
    tracks = []
    for start, end in analysis.shots():
        if analysis.faces is None:
            tracks.append(Track(start, end, None))
        else:
            found = [(index, faces) for index, faces in sorted(analysis.faces.items()) if start <= index < end]
            tracks += [_filled(chain) for chain in _chains(found)]
    return tracks


def cut_up(track: Track, shortest: int, longest: int) -> list[Track]:
    """Clips of equal length of at most `longest` frames; none where the track is shorter than `shortest`."""
    length = track.end - track.start
    if length < shortest:
        return []
    count = -(-length // longest)
    edges = [track.start + round(i * length / count) for i in range(count + 1)]
    return [track.part(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around all."""
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
    """Detections of a shot, (frame, faces), linked to one list per person: best overlaps first."""
    done: list[_Chain] = []
    open_: list[tuple[_Chain, int]] = []  # and how often it was missed
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
    """Faces between detections by linear interpolation."""
    known = np.array([index for index, _ in chain])
    values = np.array([[*face.box, *face.lips, *np.ravel(face.points)] for _, face in chain])
    frames = np.arange(known[0], known[-1] + 1)
    between = np.stack([np.interp(frames, known, column) for column in values.T], axis=1)
    faces = [
        Face(Box(*row[:4].tolist()), Box(*row[4:8].tolist()), tuple(map(tuple, row[8:].reshape(-1, 2).tolist())))
        for row in between
    ]
    return Track(int(known[0]), int(known[-1]) + 1, faces)
