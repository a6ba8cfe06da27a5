"""How AlphaPose's YOLOv3 takes a picture and which of its boxes stay, against that code's own numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType

import numpy as np
from parity_ops_read import (
    GREY_LEVELS,
    MEAN_GREY_LEVEL,
    Fixture,
    Result,
    array,
    distance,
    make,
    number_result,
    place_result,
    same_result,
    sampled_distance,
    worst,
)

from posezoo.detect import yolov3
from posezoo.detect.network import Settings, View, select

PERSON, OTHER = 0, 7  # numbers of classes
EVERYTHING = View((10_000, 10_000), (10_000, 10_000), (0, 0))  # no box is cut


def yolo_prep_frame(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """The letterbox as the peer holds it, blue first, one of its rows whole, and the network's input."""
    ours = "detect.yolov3.fit_of"
    image = make(fixture["image"], fill)
    height, width = fixture["letterbox"]["shape"][:2]
    fit = yolov3.fit_of((width, height))
    planes = fit.inputs([image])
    pixels = np.round(planes[0].transpose(1, 2, 0)[..., ::-1] * 255.0)
    (row,) = (key for key in fixture if key.startswith("row_"))
    number, first = map(int, re.findall(r"\d+", row))
    samples, mean = sampled_distance(pixels, fixture["letterbox"], fill)
    inputs, inputs_mean = sampled_distance(planes, fixture["tensor"], fill)
    some = distance(pixels[number].ravel()[:first], array(fixture[row]))
    return [
        Result("letterbox", ours, samples, GREY_LEVELS),
        Result("letterbox, mean", ours, mean, MEAN_GREY_LEVEL),
        Result("letterbox, a row", ours, some, GREY_LEVELS),
        Result("input", ours, inputs, GREY_LEVELS / 255),
        Result("input, mean", ours, inputs_mean, MEAN_GREY_LEVEL / 255),
        same_result("size of the picture", ours, fit.view((image.shape[1], image.shape[0])).size_wh, fixture["dim"]),
    ]


def yolo_write_results(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """The fixture does not hold the classes: people are every second box, and those that it gives back."""
    ours = "detect.yolov3.read, network.select"
    boxes, wanted = array(fixture["prediction_data_first5"]), array(fixture["output"])
    score, nms = (float(re.findall(rf"{name} ([\d.]+)", fixture["function"])[0]) for name in ("conf", "nms_conf"))
    settings = replace(Settings.of(yolov3.SETTINGS), score=score, nms=nms)
    classes = int(re.findall(r"(\d+) classes", fixture["function"])[0])
    places, scores = [], []
    for picture, table in enumerate(boxes):
        theirs = wanted[wanted[:, 0] == picture]
        people = set(range(0, len(table), 2)) | {int(np.abs(table[:, 4] - row[5]).argmin()) for row in theirs}
        shares = np.eye(classes)[[PERSON if row in people else OTHER for row in range(len(table))]]
        found = yolov3.read([np.concatenate([table, shares], axis=1)], EVERYTHING, score)
        stay = select(found, EVERYTHING, settings)
        places.append(place_result("boxes that stay", ours, stay.xyxy, theirs[:, 1:5]))
        scores.append(number_result("their scores", ours, stay.scores, theirs[:, 5]))
    return [worst(places), worst(scores)]


CHECKS = {"yolo_prep_frame": yolo_prep_frame, "yolo_write_results": yolo_write_results}
