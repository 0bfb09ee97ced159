"""Text on a picture: where it is, which way up, and what it says. A pipeline over RapidOCR's three networks.

Written anew from what the networks take and give; its numbers are the package's own settings.
"""

import functools
import os
from unittest import mock

import numpy as np
import pyclipper
from shapely.geometry import Polygon

# Else all children of this process look for libraries in the current folder: an empty part of LD_LIBRARY_PATH is that.
with mock.patch.dict(os.environ):
    import cv2

LARGEST, SMALLEST = 2000, 30
"""Sides of a picture between which it is left as it is."""

DETECTED = 736
"""The shorter side that the detection is shown, at least."""

HEIGHT = 48
"""Of a line as direction and recognition are shown it."""

TOGETHER = 6
"""Lines that are shown to them at once."""


@functools.cache
def _alphabet(file):
    return ["", *file.read_text(encoding="utf-8").split("\n"), " "]


def read(image, *, detection, direction, recognition, alphabet):
    """Of a picture (BGR, uint8): a corner list, a text and a score for each line that it shows, from top to bottom."""
    height, width = image.shape[:2]
    picture = _scaled(image, LARGEST, max) if max(height, width) > LARGEST else image
    if min(picture.shape[:2]) < SMALLEST:
        picture = _scaled(picture, SMALLEST, min)
    back = np.array([width / picture.shape[1], height / picture.shape[0]])
    above = _room_above(*picture.shape[:2])
    picture = cv2.copyMakeBorder(picture, above, above, 0, 0, cv2.BORDER_CONSTANT)
    boxes = _in_reading_order(_boxes(picture, detection))
    lines = _upright([_cut(picture, box) for box in boxes], direction)
    read_lines = _recognised(lines, recognition, _alphabet(alphabet))
    kept = [k for k, (_, score) in enumerate(read_lines) if score >= 0.5]
    corners = np.array(boxes, np.float32).reshape(-1, 4, 2)[kept]
    corners[..., 1] -= above
    corners = np.clip(corners * back.astype(np.float32), 0, [width, height]).astype(np.float32)
    texts = np.array([read_lines[k][0] for k in kept], dtype=object)
    return corners, texts, np.array([read_lines[k][1] for k in kept], np.float32)


def _scaled(image, side, of):
    """In sizes that the detection takes: whole multiples of 32."""
    ratio = side / of(image.shape[:2])
    height, width = (round(int(size * ratio) / 32) * 32 for size in image.shape[:2])
    return cv2.resize(image, (width, height))


def _room_above(height, width):
    """What is put above and below a picture of one line, whose text would touch the edges."""
    if height > SMALLEST and width / height <= 8:
        return 0
    return abs(max(width // 8, SMALLEST) * 2 - height) // 2


def _boxes(picture, detection):
    """The corners of each text, clockwise from the upper left."""
    height, width = picture.shape[:2]
    shown = _scaled(picture, max(DETECTED, min(height, width)), min)
    pixels = (shown.astype(np.float32) * (1 / 255.0) - np.full(3, 0.5)) / np.full(3, 0.5)
    (heat,) = detection(pixels.transpose(2, 0, 1)[None].astype(np.float32))[0]
    mask = cv2.dilate((heat > 0.3).astype(np.uint8), np.ones((2, 2), np.uint8))
    found, _ = cv2.findContours(mask * 255, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in found[:1000]:
        core, side = _rectangle(contour)
        if side < 3 or _mean_within(heat, core) < 0.5:
            continue
        whole, side = _rectangle(_grown(core))
        if side < 5:
            continue
        whole = np.round(whole / heat.shape[::-1] * [width, height])
        whole = np.clip(whole, 0, [width, height]).astype(np.int32)
        box = np.clip(_clockwise(whole), 0, [width - 1, height - 1]).astype(np.float32)
        if min(int(np.linalg.norm(box[0] - box[1])), int(np.linalg.norm(box[0] - box[3]))) > 3:
            boxes.append(box)
    return boxes


def _rectangle(points):
    """The smallest one around ``points``, and its shorter side."""
    around = cv2.minAreaRect(points)
    return _clockwise(cv2.boxPoints(around)), min(around[1])


def _clockwise(corners):
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = (pair[np.argsort(pair[:, 1], kind="stable")] for pair in (by_x[:2], by_x[2:]))
    return np.array([left[0], right[0], right[1], left[1]], np.float32)


def _mean_within(heat, corners):
    edges = np.array(heat.shape[::-1]) - 1
    first = np.clip(np.floor(corners.min(0)).astype(np.int32), 0, edges)
    last = np.clip(np.ceil(corners.max(0)).astype(np.int32), 0, edges)
    mask = np.zeros((last - first + 1)[::-1], np.uint8)
    cv2.fillPoly(mask, (corners - first.astype(np.float32)).astype(np.int32)[None], 1)
    return cv2.mean(heat[first[1] : last[1] + 1, first[0] : last[0] + 1], mask)[0]


def _grown(corners):
    """The networks learned to find the core of a text: this is its outline."""
    polygon = Polygon(corners)
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(corners, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    return np.array(offset.Execute(polygon.area * 1.6 / polygon.length)[0], np.int32)[:, None]


def _in_reading_order(boxes):
    """From top to bottom, and what is on one line from left to right."""
    ordered = sorted(boxes, key=lambda box: (box[0][1], box[0][0]))
    for last in range(len(ordered) - 1):
        for k in range(last, -1, -1):
            one, other = ordered[k][0], ordered[k + 1][0]
            if abs(other[1] - one[1]) >= 10 or other[0] >= one[0]:
                break
            ordered[k], ordered[k + 1] = ordered[k + 1], ordered[k]
    return ordered


def _cut(picture, box):
    sides = [np.linalg.norm(box[a] - box[b]) for a, b in ((0, 1), (2, 3), (0, 3), (1, 2))]
    width, height = int(max(sides[:2])), int(max(sides[2:]))
    straight = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(box, straight)
    line = cv2.warpPerspective(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.rot90(line) if height / width >= 1.5 else line


def _shown(line, width):
    """A line as the networks see it: so high, at most so wide, and what is left of that empty."""
    fitting = min(width, int(np.ceil(HEIGHT * (line.shape[1] / line.shape[0]))))
    pixels = cv2.resize(line, (fitting, HEIGHT)).astype(np.float32).transpose(2, 0, 1) / 255
    canvas = np.zeros((3, HEIGHT, width), np.float32)
    canvas[:, :, :fitting] = (pixels - 0.5) / 0.5
    return canvas


def _by_width(lines):
    """Groups of the positions of lines that are shown together: those of a like width."""
    order = np.argsort(np.array([line.shape[1] / line.shape[0] for line in lines]))
    return [order[k : k + TOGETHER] for k in range(0, len(lines), TOGETHER)]


def _upright(lines, direction):
    turned = list(lines)
    for group in _by_width(lines):
        scores = direction(np.stack([_shown(lines[k], 192) for k in group]))
        for k, (_, upside_down) in zip(group, scores, strict=True):
            if upside_down > 0.9:
                turned[k] = cv2.rotate(lines[k], cv2.ROTATE_180)
    return turned


def _recognised(lines, recognition, alphabet):
    read_lines = [("", 0.0)] * len(lines)
    for group in _by_width(lines):
        widest = max(320 / HEIGHT, *(lines[k].shape[1] / lines[k].shape[0] for k in group))
        steps = recognition(np.stack([_shown(lines[k], int(HEIGHT * widest)) for k in group]))
        for k, best, likely in zip(group, steps.argmax(2), steps.max(2), strict=True):
            new = (best != np.concatenate([[-1], best[:-1]])) & (best != 0)
            score = float(np.mean(likely[new].tolist())) if new.any() else 0.0
            read_lines[k] = "".join(alphabet[c] for c in best[new]), score
    return read_lines
