"""From maps to joints, and from a mirrored crop's maps to the crop's: against the zoos' own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from parity_ops_crop import MAP_SIZE_WH, PIXEL_STD, regions
from parity_ops_encode import STRIDE, mmpose1_encode
from parity_ops_read import (
    Doubles,
    Fixture,
    Result,
    array,
    make,
    map_result,
    number_result,
    place_result,
    same_result,
    worst,
)

from posezoo.codecs import Codec, HeatmapCodec, IntegralCodec, combined_torch, get_codec
from posezoo.codecs.heatmap import Refine, average_flip, blur_matrix, flip_back, peaks
from posezoo.crop import Grid, box_to_affine, center_scale_to_affine, invert_affine, transform_points
from posezoo.skeletons import get_skeleton

Back = Callable[[NDArray], NDArray]  # from pixels of the crops, (N, K, 2), to the photograph
PEAKS = "codecs.heatmap.peaks"


def decoders(codec: Codec) -> Iterator[tuple[str, Callable[[NDArray], tuple[NDArray, NDArray]]]]:
    """A codec's decoder on arrays and on tensors, by name."""

    def twin(maps: NDArray) -> tuple[NDArray, NDArray]:
        crop_xy, scores = combined_torch.decode(codec, torch.from_numpy(np.ascontiguousarray(maps)))
        return crop_xy.numpy(), scores.numpy()

    name = type(codec).__name__
    yield f"{name}.decode", codec.decode
    yield f"{name.lower().removesuffix('codec')}_torch.decode", twin


def decoded(
    what: str, maps: NDArray, codec: Codec, back: Back, wanted: Doubles, scores: Doubles, compared: Any = slice(None)
) -> list[Result]:
    """Joints and scores by each decoder, those of them that `compared` marks."""
    results = []
    for ours, decode in decoders(codec):
        crop_xy, got = decode(maps)
        results.append(place_result(what, ours, back(crop_xy)[compared], wanted[compared]))
        # a peer hands out peaks as they are, we keep them in [0, 1]
        results.append(number_result(f"{what}, scores", ours, got[compared], scores[compared].clip(0, 1)))
    return results


def by_region(fixture: Fixture, maps: NDArray, unit: float, grid: Grid = "legacy") -> Back:
    """From crops of a fixture's own centres and regions, in so many pixels; there may be more of them than people."""
    centers, regions_wh = array(fixture["center"])[: len(maps)], array(fixture["scale"])[: len(maps)] * unit
    to_crop = center_scale_to_affine(centers, regions_wh, crop_size(maps), 0.0, grid)
    return partial(transform_points, invert_affine(to_crop))


def crop_size(maps: NDArray) -> tuple[int, int]:
    return maps.shape[3] * STRIDE, maps.shape[2] * STRIDE


def maps_of(fixture: Fixture, fill: ModuleType, shape: Sequence[int], key: str = "heatmaps", seed: int = 2) -> NDArray:
    """The maps that a fixture names under `key`; where it does not, those that all the others have, of that shape."""
    sizes = ",".join(str(n) for n in shape)
    return make(fixture.get(key, f"make_heatmaps({sizes},seed={seed})"), fill)


def hrnet_get_final_preds(fixture: Fixture, fill: ModuleType) -> list[Result]:
    maps, scores = make(fixture["heatmaps"], fill), array(fixture["maxvals"])[..., 0]
    pixels, values = peaks(maps)
    back = by_region(fixture, maps, PIXEL_STD)
    results = [
        same_result("highest pixels", PEAKS, pixels, array(fixture["max_preds"])),
        number_result("their values", PEAKS, values, scores),
    ]
    for codec, key in (("heatmap", "final_preds_post_False"), ("heatmap-quarter", "final_preds_post_True")):
        results += decoded(f"joints by {codec}", maps, get_codec(codec), back, array(fixture[key]), scores)
    return results


def gluoncv_get_final_preds(fixture: Fixture, fill: ModuleType) -> list[Result]:
    shape = fixture["flip_shift"]["shape"]
    maps, flipped = maps_of(fixture, fill, shape), maps_of(fixture, fill, shape, "flipped_output", seed=6)
    wanted, scores = array(fixture["final_preds"]), array(fixture["maxvals"])[..., 0]
    back = by_region(fixture, maps, 1.0)
    return [
        *regions(fixture, np.array(fixture["boxes"], float), crop_size(maps), 1.0),
        *decoded("joints by heatmap-quarter", maps, get_codec("heatmap-quarter"), back, wanted, scores),
        flip_result("mirrored and moved", fixture, flipped, True, fixture["flip_shift"], fill),
    ]


def gluoncv_heatmap_to_coord(fixture: Fixture, fill: ModuleType) -> list[Result]:
    maps = make(fixture["heatmaps"], fill)
    key = next(key for key in fixture if key.startswith("upscaled"))
    boxes = np.array(fixture[key])[: len(maps), None]  # it stretches the enlarged box over the crop
    wanted, scores = array(fixture["coords"]), array(fixture["maxvals"])[..., 0]

    def back(crop_xy: NDArray) -> NDArray:
        return crop_xy / crop_size(maps) * (boxes[..., 2:] - boxes[..., :2]) + boxes[..., :2]

    return decoded("joints by heatmap", maps, get_codec("heatmap"), back, wanted, scores)


def gluoncv_heatmap_to_coord_alpha_pose(fixture: Fixture, fill: ModuleType) -> list[Result]:
    maps = maps_of(fixture, fill, (*fixture["conf"]["shape"][:2], *reversed(MAP_SIZE_WH)))
    back = partial(transform_points, invert_affine(box_to_affine(fixture["boxes"], crop_size(maps), 1.0)))
    wanted, scores = array(fixture["coords"]), array(fixture["conf"])[..., 0]
    return decoded("joints by heatmap-quarter", maps, get_codec("heatmap-quarter"), back, wanted, scores)


# ---- MMPose 0.x

REFINES: dict[str | None, Refine] = {None: "none", "default": "quarter", "unbiased": "dark", "megvii": "megvii"}


def decoding_codec(args: dict[str, Any]) -> HeatmapCodec | None:
    """The codec that its arguments for decoding mean; None where there is none of the kind."""
    if args.get("target_type", "GaussianHeatmap") != "GaussianHeatmap":
        return None
    kernel = args.get("kernel", 11)
    if args.get("use_udp"):
        return HeatmapCodec(refine="dark", grid="unbiased", blur_kernel=kernel)
    return HeatmapCodec(refine=REFINES[args.get("post_process")], blur_kernel=kernel)


def mmpose_decode(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = []
    for case in fixture["cases"]:
        codec = decoding_codec(case["args"])
        if codec is None:
            continue
        maps = make(case.get("heatmaps", fixture["heatmaps"]), fill)
        found = peaks(maps)[1] > 0  # it puts a joint without a peak outside the map, we at its first pixel
        what = f"joints by {codec.refine}, kernel {codec.blur_kernel}, {codec.grid} grid"
        back = by_region(fixture, maps, PIXEL_STD, codec.grid)
        results += decoded(what, maps, codec, back, array(case["preds"]), array(case["maxvals"])[..., 0], found)
    maps = make(fixture["heatmaps"], fill)
    for key in fixture:
        if key.startswith("gaussian_blur_"):
            blurred = blur(maps, int(key.rpartition("_")[2]))
            results.append(map_result(key.replace("_", " "), "codecs.heatmap.blur_matrix", blurred, fixture[key], fill))
    return results


def blur(maps: NDArray, kernel: int) -> NDArray:
    """Maps blurred and given their former height."""
    height, width = maps.shape[2:]
    blurred = blur_matrix(height, kernel, "zero") @ maps @ blur_matrix(width, kernel, "zero").T
    return blurred * (maps.max(axis=(2, 3), keepdims=True) / blurred.max(axis=(2, 3), keepdims=True))


# ---- MMPose 1.x

MMPOSE_1 = {
    "MSRAHeatmap": HeatmapCodec(refine="quarter"),
    "MSRAHeatmap unbiased": HeatmapCodec(refine="dark"),
    "UDPHeatmap": HeatmapCodec(refine="dark", grid="unbiased"),
    "MegviiHeatmap": HeatmapCodec(refine="megvii"),
}


def mmpose1_codecs(fixture: Fixture, fill: ModuleType) -> list[Result]:
    results = []
    for case in fixture["cases"]:
        if codec := MMPOSE_1.get(case["codec"]):
            results += mmpose1_decode(fixture, case, codec, fill)
            results += mmpose1_encode(fixture, case, codec, fill)
    return results


def mmpose1_decode(fixture: Fixture, case: dict[str, Any], codec: HeatmapCodec, fill: ModuleType) -> list[Result]:
    """The joints of one codec, in the crop."""
    maps = make(fixture["heatmaps"], fill)
    pixels, values = peaks(maps)
    size, last = np.array(crop_size(maps)), np.array(maps.shape[:1:-1]) - 1
    wanted = np.concatenate([array(entry) for entry in case["decode_keypoints"]])
    scores = np.concatenate([array(entry) for entry in case["decode_scores"]])
    compared = values > 0
    if codec.refine == "quarter":
        # beside an edge it still moves along the edge, where HRNet and we leave the joint alone
        compared &= np.all((pixels > 1) & (pixels < last - 1) | (pixels == 0) | (pixels == last), axis=2)
    elif codec.grid == "unbiased":
        # it encodes with (size - 1) / (map - 1) but decodes with size / (map - 1); ours is the inverse of the encoding
        wanted = wanted * (size - 1) / size
        # its blur has zeros outside the map, that of the UDP code and ours mirrors the map there
        reach = codec.blur_kernel // 2 + 1
        compared &= np.all((pixels > reach) & (pixels < last - reach), axis=2)
    return decoded(f"joints by {case['codec']}", maps, codec, lambda crop_xy: crop_xy, wanted, scores, compared)


# ---- the mirrored crop


def mirror_of(fixture: Fixture, joints: int) -> NDArray:
    """Which joint is on the other side: the fixture's pairs or indices, or COCO's where it has neither."""
    if "flip_indices" in fixture:
        return np.array(fixture["flip_indices"])
    if "flip_pairs" not in fixture:
        return get_skeleton("coco17").mirror_index
    index = np.arange(joints)
    for left, right in fixture["flip_pairs"]:
        index[[left, right]] = right, left
    return index


def flip_result(what: str, fixture: Fixture, maps: NDArray, shift: bool, wanted: Any, fill: ModuleType) -> Result:
    got = flip_back(maps, mirror_of(fixture, maps.shape[1]), shift)
    return map_result(what, "codecs.heatmap.flip_back", got, wanted, fill)


def mmpose_flip(fixture: Fixture, fill: ModuleType) -> list[Result]:
    maps = make(fixture["flipped_output"], fill)
    plain, moved = ("flip_back", "shifted") if "flip_back" in fixture else ("noshift", "shift")
    return [
        flip_result("mirrored", fixture, maps, False, fixture[plain], fill),
        flip_result("mirrored and moved", fixture, maps, True, fixture[moved], fill),
    ]


def hrnet_flip(fixture: Fixture, fill: ModuleType) -> list[Result]:
    maps, flipped = make(fixture["output"], fill), make(fixture["flipped_output"], fill)
    mirror = mirror_of(fixture, maps.shape[1])
    results = mmpose_flip(fixture, fill)
    for what, key, shift in (("mean", "average_noshift", False), ("mean, moved", "average_shift", True)):
        average = average_flip(maps, flipped, mirror, shift)
        results.append(map_result(what, "codecs.heatmap.average_flip", average, fixture[key], fill))
    both, back = average_flip(maps, flipped, mirror, True), by_region(fixture, maps, PIXEL_STD)
    for ours, decode in decoders(get_codec("heatmap-quarter")):
        wanted = array(fixture["final_preds_shift"])
        results.append(place_result("joints of both", ours, back(decode(both)[0]), wanted))
    return results


# ---- AlphaPose


def heatmap_to_coord(fixture: Fixture, fill: ModuleType) -> list[Result]:
    maps, mirrored_back = make(fixture["heatmaps"], fill), make(fixture["heatmaps_flip"], fill)
    mirror = mirror_of(fixture, maps.shape[1])
    flipped = flip_back(mirrored_back, mirror, False)  # the peer is given the second maps as already mirrored back
    boxes = np.array(fixture["bbox"], float)
    centers, regions_wh = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    affine = invert_affine(center_scale_to_affine(centers, regions_wh, crop_size(maps)))
    found: dict[tuple[str, str], list[Result]] = {}
    for case in [*fixture["simple"], *fixture["regress"]]:
        codec, person = alphapose_codec(case), slice(case["image"], case["image"] + 1)
        if codec is None:
            continue
        read = codec.average_flip(maps, flipped, mirror, False) if case["flip"] else maps
        what = f"joints by {case.get('norm_type', 'quarter')}{', both crops' if case['flip'] else ''}"
        scores = array(case["scores"] if "scores" in case else case["maxvals"])[None, :, 0]
        back = partial(transform_points, affine[person])
        for result in decoded(what, read[person], codec, back, array(case["coords"])[None], scores):
            found.setdefault((result.what, result.ours), []).append(result)
    # what the peer does with `shift` cannot be compared: it moves a map onto itself, and smears it
    return [
        *(worst(results) for results in found.values()),
        same_result("highest pixels", PEAKS, peaks(maps)[0][0], array(fixture["get_max_pred_image0"])),
        flip_result("mirrored", fixture, mirrored_back, False, fixture["flip_heatmap"]["noshift"], fill),
    ]


def alphapose_codec(case: dict[str, Any]) -> HeatmapCodec | IntegralCodec | None:
    """The codec of a case; None for maps that are probabilities as they come, which no weights give."""
    norm = case.get("norm_type")
    if norm is None:
        return HeatmapCodec()
    return IntegralCodec(norm=norm) if norm in ("softmax", "sigmoid") else None


CHECKS = {
    "gluoncv_get_final_preds": gluoncv_get_final_preds,
    "gluoncv_heatmap_to_coord": gluoncv_heatmap_to_coord,
    "gluoncv_heatmap_to_coord_alpha_pose": gluoncv_heatmap_to_coord_alpha_pose,
    "heatmap_to_coord": heatmap_to_coord,
    "hrnet_flip": hrnet_flip,
    "hrnet_get_final_preds": hrnet_get_final_preds,
    "mmpose1_codecs": mmpose1_codecs,
    "mmpose1_flip": mmpose_flip,
    "mmpose_decode": mmpose_decode,
    "mmpose_flip": mmpose_flip,
}
