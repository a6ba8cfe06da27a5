"""Losses, measures and what they are read from, against the zoos' own code and the datasets' own evaluators."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parity_ops_crop import PIXEL_STD
from parity_ops_encode import labels
from parity_ops_read import (
    TOLERANCE,
    Doubles,
    Fixture,
    Result,
    array,
    distance,
    make,
    number_result,
    place_result,
    same_result,
)

from posezoo.codecs.heatmap import HeatmapCodec, peaks
from posezoo.crop import box_to_center_scale
from posezoo.data.mpii import crop_center_scale
from posezoo.data.readers import read_dataset
from posezoo.evaluate import evaluate_predictions
from posezoo.evaluate.pck import auc, epe, nme, pck_accuracy, pose_pck_accuracy
from posezoo.train.losses import heatmap_mse, heatmap_ohkm

JUDGE = "evaluate.evaluate_predictions"


def folder_of(fill: ModuleType) -> Path:
    """The folder of fixtures."""
    return Path(str(fill.__file__)).resolve().parent


def figures(what: str, ours: str, got: dict[str, float], wanted: dict[str, float]) -> Result:
    """Our figures under the names of the fixture's; one that we lack is no agreement."""
    return number_result(what, ours, [got.get(our_name(name), np.nan) for name in wanted], list(wanted.values()))


CROWDEDNESS = {"AP(E)": "APE", "AP(M)": "APMedium", "AP(H)": "APH"}


def our_name(metric: str) -> str:
    """AP50 for "AP .5" and APM for "AP (M)" (COCO), but APMedium for "AP(M)" (CrowdPose); Head for "Head AP"
    (PoseTrack18), PCK/Head for "Head PCK" (JHMDB); the others as they are."""
    if match := re.fullmatch(r"([A-Z][a-z]+) (AP|t?PCK)", metric):
        row, measure = match.groups()
        return row if measure == "AP" else f"{measure}/{row}"
    if re.match(r"A[PR] ", metric):
        return re.sub(r"[ .()]", "", f"{metric}0" if metric.endswith(".5") else metric)
    return CROWDEDNESS.get(metric, metric)


def metrics_examples(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """Each dataset's own; the annotations lie where the fixture says, seen from beside the folder of fixtures."""
    results = []
    for name, example in fixture["examples"].items():
        annotations = folder_of(fill).parent / example["annotations"]
        if annotations.exists():
            got = evaluate_predictions(example["predictions"], example["dataset"], annotations)
            results.append(figures(name, JUDGE, got, example["metrics"]))
    return results


# ---- MPII


def hrnet_mpii_pckh(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """By HRNet's file of truth, which lies beside the fixture, and by MMPose's list of people."""
    poses = array(fixture["pred_0based"])
    scored = np.concatenate([poses, np.ones_like(poses[..., :1])], axis=2)
    found = [{"annotation": n, "keypoints": pose.ravel().tolist(), "score": 1.0} for n, pose in enumerate(scored)]
    joints, missing, heads = (array(fixture[key]) for key in ("pos_gt_src", "jnt_missing", "headboxes_src"))
    people = [
        {
            "joints": joints[..., n].tolist(),
            "joints_vis": (1 - missing[:, n]).tolist(),
            "headbox": heads[..., n].ravel().tolist(),
        }
        for n in range(len(poses))
    ]
    results = []
    for what, truth in (("PCKh by .mat", folder_of(fill) / "ops" / fixture["gt_mat"]), ("PCKh by list", people)):
        got = evaluate_predictions(found, "mpii", truth)
        results.append(figures(what, JUDGE, got, fixture["result"]))
    return results


def hrnet_mpii_db(fixture: Fixture, fill: ModuleType) -> list[Result]:
    given, wanted = fixture["annotation"], fixture["db"]
    centers, scales = array([person["center"] for person in wanted]), array([person["scale"] for person in wanted])
    joints, visible = array([p["joints_3d"] for p in wanted]), array([p["joints_3d_vis"] for p in wanted])[..., 0]
    ours = "data.mpii.crop_center_scale"
    got = crop_center_scale([person["center"] for person in given], [person["scale"] for person in given])
    with TemporaryDirectory() as folder:
        file = Path(folder) / "people.json"
        file.write_text(json.dumps(given))
        people = read_dataset("mpii", file, file.parent)
    located = scales[:, 0] > 0  # who has no place in the picture has an empty box here
    # the region is a square: which of its sides is fitted to does not matter
    boxed = box_to_center_scale(people.boxes_xyxy[located], (256, 256))
    reader = "data.readers.read_dataset"
    return [
        place_result("centres", ours, got[0], centers),
        number_result("scales", ours, got[1], scales[:, 0]),
        place_result("centres of boxes", reader, boxed[0], centers[located]),
        place_result("regions around boxes", reader, boxed[1], scales[located] * PIXEL_STD),
        number_result("visibility", reader, people.weights, visible),
        place_result("joints", reader, people.keypoints_xy[visible > 0], joints[visible > 0, :2]),
    ]


# ---- arrays

AUC_SCALE = 30.0  # pixels; what the fixture does not say


def mmpose_pck(fixture: Fixture, fill: ModuleType) -> list[Result]:
    found, truth, visible, scale = (array(fixture[key]) for key in ("pred", "gt", "mask", "normalize"))
    results = [
        pck_result(f"PCK at {threshold}", "pck.pck_accuracy", pck_accuracy(found, truth, visible, at, scale), wanted)
        for threshold, wanted in fixture["pck"].items()
        for at in [float(threshold)]
    ]
    results += [
        number_result("AUC", "pck.auc", auc(found, truth, visible, AUC_SCALE), fixture["auc"]),
        number_result("EPE", "pck.epe", epe(found, truth, visible), fixture["epe"]),
        number_result("NME", "pck.nme", nme(found, truth, visible, scale), fixture["nme"]),
    ]
    for key, wanted in fixture.items():
        if key.startswith("pose_pck_accuracy("):
            maps, target = (make(call, fill) for call in re.findall(r"make_\w+\([^()]*\)", key))
            got = pose_pck_accuracy(maps, target, np.ones(maps.shape[:2]))
            results.append(pck_result("PCK of maps", "pck.pose_pck_accuracy", got, wanted))
    return results


def pck_result(what: str, ours: str, got: tuple[Doubles, float, int], wanted: list[Any]) -> Result:
    """Each joint's share, their mean and how many joints count."""
    return number_result(what, ours, np.hstack(got), np.hstack([array(entry) for entry in wanted]))


# ---- what training is told


def hrnet_loss_accuracy(fixture: Fixture, fill: ModuleType) -> list[Result]:
    """The losses, of all joints, of the labelled and of the hardest, and the accuracy."""
    text, key = re.findall(r"make_\w+\([^()]*\)|\d+x\d+_s\d+", fixture["note"])[::-1]
    maps, (height, width, sigma) = make(text, fill), (int(n) for n in re.findall(r"\d+", key))
    truth = json.loads((folder_of(fill) / "ops" / "hrnet_generate_target.json").read_text())
    # one person, and the same one with the joints the other way round
    crop_xy, visible = (np.stack([part, part[::-1]]) for part in labels(truth))
    targets, weights = HeatmapCodec(sigma=float(sigma)).encode(crop_xy, visible, (width, height))
    given = torch.from_numpy(maps), torch.from_numpy(targets)
    labelled = torch.from_numpy(weights)
    losses = {
        "mse": heatmap_mse(*given, torch.ones_like(labelled)),
        "mse_weighted": heatmap_mse(*given, labelled),
        "ohkm_weighted": heatmap_ohkm(*given, labelled),
    }
    rolled = fixture["accuracy_rolled"]
    moved = [[np.roll(m, j % 5 * (1 + b), axis=1) for j, m in enumerate(person)] for b, person in enumerate(targets)]
    return [
        *(
            Result(name, "train.losses", distance(loss.item(), fixture[name]) / fixture[name], TOLERANCE)
            for name, loss in losses.items()
        ),
        *accuracy("accuracy", maps, targets, fixture["accuracy"]),
        *accuracy("accuracy, rolled", np.array(moved), targets, [rolled[k] for k in ("acc", "avg_acc", "cnt", "pred")]),
    ]


def accuracy(what: str, maps: NDArray, targets: NDArray, wanted: list[Any]) -> list[Result]:
    """Within half a tenth of the map; a joint counts whose target is not on the map's first two pixels."""
    ours, (people, _, height, width) = "pck.pose_pck_accuracy", maps.shape
    judged = (peaks(targets)[0] > 1).all(axis=2)
    scale = np.tile([[height / 10, width / 10]], (people, 1))
    shares, mean, count = pose_pck_accuracy(maps, targets, judged, 0.5, scale)
    of_all, average, number, pixels = wanted
    return [
        number_result(what, ours, [mean, *shares, mean, count], [*array(of_all), average, number]),
        same_result(f"{what}, highest pixels", "codecs.heatmap.peaks", peaks(maps)[0], array(pixels)),
    ]


CHECKS = {
    "hrnet_loss_accuracy": hrnet_loss_accuracy,
    "hrnet_mpii_db": hrnet_mpii_db,
    "hrnet_mpii_pckh": hrnet_mpii_pckh,
    "metrics_examples": metrics_examples,
    "mmpose_pck": mmpose_pck,
}
