"""Results written and read back: every skeleton in every format, and what a format has no place for is known."""

from __future__ import annotations

import csv as plain_csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from format_results import COCO, assert_same, every_format, some_poses, strict, write
from posezoo.errors import PosezooError
from posezoo.formats import FORMATS, KEPT, Format, Result, open_writer, read_results
from posezoo.formats.places import BODY_18, BODY_25, FACE, fit
from posezoo.skeletons import Skeleton, get_skeleton, list_skeletons
from posezoo.types import Poses

NO_PLACE = [("hand21", name) for name in ("openpose", "openpose25", "cmu")]


@every_format
@pytest.mark.parametrize("skeleton", list_skeletons())
def test_every_skeleton_comes_back_from_every_format(tmp_path: Path, skeleton: str, chosen: Format) -> None:
    joints = get_skeleton(skeleton)
    if (skeleton, chosen.name) in NO_PLACE:
        with pytest.raises(PosezooError, match="no place for any joint of hand21"):
            open_writer(chosen.name, tmp_path / "out", joints)
        assert not (tmp_path / "out").exists()
        return
    records = [
        Result(some_poses(joints, 3), "clip/a.mp4", 0, 0.0, (640, 480)),
        Result(Poses.empty(joints), "clip/a.mp4", 1, 0.04, (640, 480)),
        Result(some_poses(joints, 1, seed=2), "clip/a.mp4", 2, 0.08, (640, 480)),
    ]
    files = write(chosen.name, tmp_path / "out", records, joints, video=True)
    expected = records if "images without people" in chosen.keeps else [records[0], records[2]]
    # found out from the content; a COCO or AlphaPose list does not name its skeleton
    back = list(read_results(files[0], None, joints if chosen.lists else None))
    assert len(back) == len(expected)
    for one, other in zip(back, expected, strict=True):
        assert_same(one, other, chosen)


@st.composite
def results(draw: st.DrawFn) -> Result:
    skeleton = get_skeleton(draw(st.sampled_from(["coco17", "mpii16", "halpe26"])))
    people, joints = draw(st.integers(0, 2)), len(skeleton)
    pixels, unit = st.floats(-5000, 20000, width=32), st.floats(0, 1, width=32)
    xy = draw(hnp.arrays(np.float32, (people, joints, 2), elements=pixels))
    scores = draw(hnp.arrays(np.float32, (people, joints), elements=unit))
    missing = draw(hnp.arrays(bool, (people, joints)))
    at_zero = (np.abs(xy) < 0.01).all(axis=2) & (scores < 0.01)  # which some formats take for a joint not placed
    xy[missing | at_zero], scores[missing | at_zero] = np.nan, 0
    corner = draw(hnp.arrays(np.float32, (people, 2), elements=pixels))
    extent = draw(hnp.arrays(np.float32, (people, 2), elements=st.floats(0, 3000, width=32)))
    ids = draw(st.lists(st.integers(-1, 1 << 60), min_size=people, max_size=people)) if draw(st.booleans()) else None
    box_scores = draw(hnp.arrays(np.float32, people, elements=unit))
    poses = Poses(xy, scores, np.hstack([corner, corner + extent]), box_scores, skeleton, ids)
    size = draw(st.none() | st.tuples(st.integers(0, 10**5), st.integers(0, 10**5)))
    frame = draw(st.none() | st.integers(0, 1 << 40))
    image = draw(st.text(max_size=8).map(lambda name: f"{name}x"))
    return Result(poses, image, frame, draw(st.none() | st.floats(0, 1e5)), size)


@every_format
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=results())
def test_any_result_comes_back(tmp_path_factory: pytest.TempPathFactory, chosen: Format, record: Result) -> None:
    folder = tmp_path_factory.mktemp("any")
    (path,) = write(chosen.name, folder, [record], record.poses.skeleton)
    back = list(read_results(path, chosen.name, record.poses.skeleton))
    if len(record.poses) or "images without people" in chosen.keeps:
        (only,) = back
        assert_same(only, record, chosen)
    else:
        assert back == []
    again = folder / "again"
    if back:
        (second,) = write(chosen.name, again, back, record.poses.skeleton)
        (last,) = read_results(second, chosen.name, record.poses.skeleton)
        assert_same(last, back[0], chosen)


@every_format
def test_a_picture_whose_name_starts_with_a_dot(tmp_path: Path, chosen: Format) -> None:
    poses = Poses(np.full((1, 17, 2), 50), np.full((1, 17), 0.5), [[0, 0, 99, 99]], [0.9], get_skeleton("coco17"))
    (path,) = write(chosen.name, tmp_path / "out", [Result(poses, ".x.jpg")], poses.skeleton)
    (back,) = read_results(path, chosen.name, poses.skeleton)
    assert len(back.poses) == 1


@every_format
def test_no_image_at_all(tmp_path: Path, chosen: Format) -> None:
    (path,) = write(chosen.name, tmp_path / "out", [])
    if chosen.each:
        assert list(path.iterdir()) == []
        with pytest.raises(PosezooError, match="has no results in it"):
            read_results(path)
    else:
        assert path.suffix == chosen.suffix and list(read_results(path)) == []


@every_format
def test_nobody_in_a_whole_video(tmp_path: Path, chosen: Format) -> None:
    nobody = [Result(Poses.empty(COCO), "a.mp4", frame, frame / 25, (8, 6)) for frame in range(3)]
    (path,) = write(chosen.name, tmp_path / "out", nobody, video=True)
    back = list(read_results(path))
    assert [r.frame for r in back] == ([0, 1, 2] if "images without people" in chosen.keeps else [])


@every_format
def test_names_in_any_script(tmp_path: Path, chosen: Format) -> None:
    images = ['straße, "7".jpg', "東京/人.png", "a\nb.jpg", "é;è.jpg", "bytes\udcff.jpg"]
    records = [Result(some_poses(COCO, 1, seed), image) for seed, image in enumerate(images)]
    (path,) = write(chosen.name, tmp_path / "out", records)
    back = {record.image: record for record in read_results(path, chosen.name)}
    if "image names" in chosen.keeps:
        escaped = chosen.name in ("csv", "parquet")
        ours = [name.encode(errors="backslashreplace").decode() if escaped else name for name in images]
        ours = [Path(name).name for name in ours] if chosen.name == "alphapose" else ours
        assert set(back) == set(ours)
    assert len(back) == len(images)
    for file in [path] if path.is_file() else path.iterdir():
        if chosen.name != "parquet":
            file.read_text(encoding="utf-8")


@every_format
@pytest.mark.parametrize(
    "broken",
    [
        {"scores": np.full((1, 17), np.nan)},
        {"scores": np.full((1, 17), np.inf)},
        {"boxes_xyxy": [[0, 0, np.nan, 1]]},
        {"box_scores": [np.nan]},
    ],
    ids=["score nan", "score inf", "box nan", "box score nan"],
)
def test_what_is_not_finite_is_refused_and_the_rest_kept(
    tmp_path: Path, chosen: Format, broken: dict[str, Any]
) -> None:
    good = some_poses(COCO, 1, tracked=False)
    values = {n: getattr(good, n) for n in ("keypoints_xy", "scores", "boxes_xyxy", "box_scores")}
    bad = Poses(**{**values, **broken}, skeleton=COCO)
    path = tmp_path / "out"
    needed = {"scores"} | ({"boxes_xyxy"} if "boxes" in chosen.keeps else set())
    needed |= {"box_scores"} if chosen.keeps & {"box scores", "person scores"} else set()
    if not needed & set(broken):
        write(chosen.name, path, [Result(good, "a.jpg"), Result(bad, "b.jpg")])
        return
    with pytest.raises(PosezooError, match=r"cannot write (nan|inf): ") as caught:
        write(chosen.name, path, [Result(good, "a.jpg"), Result(bad, "b.jpg")])
    assert "\n" not in str(caught.value)
    (only,) = read_results(path)
    assert_same(only, Result(good, "a.jpg"), chosen)


@every_format
def test_one_file_is_of_one_skeleton(tmp_path: Path, chosen: Format) -> None:
    with open_writer(chosen.name, tmp_path, COCO) as writer:
        with pytest.raises(PosezooError, match=r"x\.jpg has the joints of mpii16, expected coco17"):
            writer.add(Result(some_poses(get_skeleton("mpii16")), "x.jpg"))


def test_scores_of_others_are_passed_on(tmp_path: Path) -> None:
    """A person's score is not multiplied anew each time that a file is converted, and may be above 1."""
    entry = {"image_id": "x.jpg", "category_id": 1, "keypoints": [5, 6, 3.5] * 17, "score": 2.875, "box": [1, 2, 3, 4]}
    source = tmp_path / "alphapose-results.json"
    source.write_text(json.dumps([entry]))
    for number, name in enumerate(["posezoo", "coco", "csv", "alphapose", "jsonl"]):
        (record,) = read_results(source)
        assert record.scores == pytest.approx([2.875]) and record.poses.scores[0, 0] == 3.5
        (source,) = write(name, tmp_path / str(number), [record])
    (record,) = read_results(source)
    assert record.scores == pytest.approx([2.875])


def openpose(tmp_path: Path, poses: Poses, format: str = "openpose") -> dict[str, Any]:
    (folder,) = write(format, tmp_path / format, [Result(poses, "street.jpg", size_wh=(640, 480))], poses.skeleton)
    (file,) = folder.iterdir()
    assert file.name == ("street.json" if format == "cmu" else "street_keypoints.json")
    return strict(file.read_text())


def points(flat: list[float]) -> np.ndarray:
    return np.reshape(flat, (-1, 3))


def test_openpose_order_and_the_neck_between_the_shoulders(tmp_path: Path) -> None:
    poses = some_poses(COCO, 1)
    table = openpose(tmp_path, poses)
    assert table["version"] == 0.1 and table["posezoo"]["made"] == ["neck"]
    (person,) = table["people"]
    body = points(person["pose_keypoints_2d"])
    assert person["person_id"] == [4] and body.shape == (18, 3)
    xy, scores = poses.keypoints_xy[0], poses.scores[0]
    left, right = COCO.index("left_shoulder"), COCO.index("right_shoulder")
    assert body[1, :2] == pytest.approx((xy[left] + xy[right]) / 2, abs=0.006)
    assert body[1, 2] == pytest.approx(min(scores[left], scores[right]), abs=1e-4)
    named = ["nose", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"]
    named += ["right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"]
    named += ["right_eye", "left_eye", "right_ear", "left_ear"]
    order = [COCO.index(joint) for joint in named]
    assert body[[0, *range(2, 18)], :2] == pytest.approx(xy[order], abs=0.006)
    assert [person[part] for part in ("face_keypoints_2d", "hand_left_keypoints_2d", "hand_right_keypoints_2d")] == [
        [],
        [],
        [],
    ]
    assert points(openpose(tmp_path, poses, "cmu")["bodies"][0]["joints"]) == pytest.approx(body)


def test_body_25_has_feet_and_the_middle_of_the_hips(tmp_path: Path) -> None:
    poses = some_poses(get_skeleton("wholebody133"), 1)
    table = openpose(tmp_path, poses, "openpose25")
    body, joints = points(table["people"][0]["pose_keypoints_2d"]), poses.skeleton
    assert table["posezoo"]["made"] == ["neck", "mid_hip"] and body.shape == (25, 3)
    hips = [joints.index("left_hip"), joints.index("right_hip")]
    assert body[8, :2] == pytest.approx(poses.keypoints_xy[0, hips].mean(axis=0), abs=0.006)
    assert body[8, 2] == pytest.approx(poses.scores[0, hips].min(), abs=1e-4)
    feet = ["left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"]
    assert body[19:, :2] == pytest.approx(poses.keypoints_xy[0, [joints.index(j) for j in feet]], abs=0.006)


@pytest.mark.parametrize("shown", ["left_shoulder", "right_shoulder"])
def test_a_neck_needs_both_shoulders(tmp_path: Path, shown: str) -> None:
    poses = some_poses(COCO, 1)
    xy = poses.keypoints_xy.copy()
    xy[0, COCO.index(shown)] = np.nan
    poses = Poses(xy, poses.scores, poses.boxes_xyxy, poses.box_scores, COCO)
    table = openpose(tmp_path, poses)
    assert points(table["people"][0]["pose_keypoints_2d"])[1].tolist() == [0, 0, 0]
    (back,) = read_results(tmp_path / "openpose")
    assert np.isnan(back.poses.keypoints_xy[0, COCO.index(shown)]).all()


@pytest.mark.parametrize(
    ("skeleton", "neck", "mid_hip"),
    [
        ("coco17", None, None),
        ("posetrack17", None, None),  # its head_bottom is the upper neck
        ("trb40", None, None),  # and so is its neck
        ("wholebody133", None, None),
        ("mpii16", "thorax", "pelvis"),
        ("mhp16", "thorax", "pelvis"),
        ("halpe26", "neck", "hip"),
        ("halpe68", "neck", "hip"),
        ("halpe136", "neck", "hip"),
        ("aic14", "neck", None),
        ("crowdpose14", "neck", None),
        ("jhmdb15", "neck", None),
    ],
)
def test_neck_and_hip_are_found_by_name(skeleton: str, neck: str | None, mid_hip: str | None) -> None:
    joints = get_skeleton(skeleton)
    found = fit(BODY_25, joints)
    for place, name in (("neck", neck), ("mid_hip", mid_hip)):
        row = found.rows[BODY_25.index(place)]
        assert (None if row < 0 else joints.joints[row]) == name
        assert (place in found.made) == (name is None)


def test_hands_and_face_where_there_are_any(tmp_path: Path) -> None:
    poses = some_poses(get_skeleton("halpe136"), 1)
    (person,) = openpose(tmp_path, poses)["people"]
    face, joints = points(person["face_keypoints_2d"]), poses.skeleton
    assert face.shape == (70, 3) and (face[68:] == 0).all() and FACE[68:] == ("right_pupil", "left_pupil")
    assert face[:68, :2] == pytest.approx(poses.keypoints_xy[0, joints.index("face-0") :][:68], abs=0.006)
    for side in ("left", "right"):
        hand = points(person[f"hand_{side}_keypoints_2d"])
        row = joints.index(f"{side}_hand_root")
        assert hand[:, :2] == pytest.approx(poses.keypoints_xy[0, row : row + 21], abs=0.006)
    assert len(BODY_18) == 18 and points(person["pose_keypoints_2d"]).shape == (18, 3)


def test_a_users_own_skeleton(tmp_path: Path) -> None:
    names = ("nose", "neck", "left_hip", "right_hip", "tail")
    mine = Skeleton("mine", names, oks_sigmas=[0.1] * 5)
    record = Result(some_poses(mine, 1), "x.jpg", size_wh=(9, 9))
    for name in ("openpose25", "csv", "jsonl", "alphapose"):
        (path,) = write(name, tmp_path / name, [record], mine)
        if name == "jsonl":
            write(name, path, [], mine, resume=True)
        (back,) = read_results(path, None, mine)
        assert_same(back, record, FORMATS[name])
    assert FORMATS["openpose25"].made(mine) == ["mid_hip"] and FORMATS["openpose25"].unplaced(mine) == ["tail"]


def test_files_of_openpose_itself(tmp_path: Path) -> None:
    body = [100.0, 50.0, 0.9] * 18
    person = {"person_id": [-1], "pose_keypoints_2d": body, "face_keypoints_2d": [], "hand_left_keypoints_2d": []}
    file = tmp_path / "clip_000000000003_keypoints.json"
    file.write_text(json.dumps({"version": 1.3, "people": [{**person, "pose_keypoints_3d": []}]}))
    (record,) = read_results(file)
    assert record.image == "clip_000000000003" and record.poses.skeleton == COCO and record.poses.track_ids is None
    assert record.poses.keypoints_xy.tolist() == [[[100, 50]] * 17] and record.poses.boxes_xyxy.tolist() == [
        [100, 50] * 2
    ]
    file.write_text(json.dumps({"version": 1.3, "people": [{**person, "pose_keypoints_2d": [7, 8, 1] * 25}]}))
    (feet,) = read_results(file, skeleton="halpe26")
    placed = np.isfinite(feet.poses.keypoints_xy[0]).all(axis=1)
    assert [j for j, here in zip(feet.poses.skeleton.joints, placed, strict=True) if not here] == ["head"]


@every_format
def test_an_id_of_nobody_yet_comes_back(tmp_path: Path, chosen: Format) -> None:
    """-1 beside an id, and where all of a frame have it."""
    ids = [[-1, -1], [4, -1], [-1, 5]]
    poses = [replace(some_poses(COCO, 2, n), track_ids=np.array(own)) for n, own in enumerate(ids)]
    records = [Result(each, "clip.mp4", frame, frame / 25) for frame, each in enumerate(poses)]
    (path,) = write(chosen.name, tmp_path / f"out{chosen.suffix if not chosen.each else ''}", records, video=True)
    back = [record.poses.track_ids for record in read_results(path, chosen.name)]
    kept = "track ids" in chosen.keeps
    assert [None if own is None else own.tolist() for own in back] == (ids if kept else [None] * 3)


def test_ids_in_files_of_openpose_itself(tmp_path: Path) -> None:
    person = {"pose_keypoints_2d": [100.0, 50.0, 0.9] * 18}
    file = tmp_path / "a_keypoints.json"
    for ids, read in (([[-1], [3]], [-1, 3]), ([[-1], [-1]], None), ([[], []], None)):
        file.write_text(json.dumps({"version": 1.3, "people": [{**person, "person_id": each} for each in ids]}))
        (record,) = read_results(file)
        assert (None if record.poses.track_ids is None else record.poses.track_ids.tolist()) == read


def test_alphapose_layout(tmp_path: Path) -> None:
    record = Result(some_poses(COCO, 1), "photos/street.jpg", size_wh=(640, 480))
    (path,) = write("alphapose", tmp_path, [record])
    assert path.name == "alphapose-results.json"
    (entry,) = strict(path.read_text())
    assert list(entry) == ["image_id", "category_id", "keypoints", "score", "box", "idx"]
    assert entry["image_id"] == "street.jpg" and entry["category_id"] == 1 and entry["idx"] == 4
    x1, y1, x2, y2 = record.poses.boxes_xyxy[0].tolist()
    assert entry["box"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.006)
    assert entry["score"] == pytest.approx(record.scores[0], abs=1e-4) and len(entry["keypoints"]) == 51
    (bare,) = write("alphapose", tmp_path / "b", [Result(some_poses(COCO, 1, tracked=False), "a.mp4", 7)], video=True)
    (entry,) = strict(bare.read_text())
    assert entry["image_id"] == "7.jpg" and "idx" not in entry


@pytest.mark.parametrize(
    ("entry", "idx"),
    [({"idx": 3}, 3), ({"idx": 3.0}, 3), ({"idx": [3.0]}, 3), ({}, None), ({"idx": None}, None)],
)
def test_files_of_alphapose_itself(tmp_path: Path, entry: dict[str, Any], idx: int | None) -> None:
    file = tmp_path / "alphapose-results.json"
    person = {"image_id": "0.jpg", "category_id": 1, "keypoints": [5, 6, 1.5] * 17, "score": 3.1, **entry}
    other = {**person, "image_id": "1.jpg"}
    file.write_text(json.dumps([person, other, person]))
    first, second = read_results(file)  # people of one image need not stand together
    assert (first.image, len(first.poses), second.image, len(second.poses)) == ("0.jpg", 2, "1.jpg", 1)
    assert (None if second.poses.track_ids is None else second.poses.track_ids.tolist()) == (idx and [idx])
    assert second.poses.boxes_xyxy.tolist() == [[5, 6, 5, 6]]


def test_coco_ids_and_wholebody_parts(tmp_path: Path) -> None:
    images = ["val/000000000785.jpg", "a/7.jpg", "b/7.jpg", "c/7.jpg", "x.jpg"]
    (path,) = write("coco", tmp_path, [Result(some_poses(COCO, 1, n), image) for n, image in enumerate(images)])
    assert path.name == "coco_results.json"
    assert [entry["image_id"] for entry in strict(path.read_text())] == [785, 7, "7.jpg", "c/7.jpg", "x.jpg"]
    parts = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    flat = {name: [row, row, 1] * count for row, (name, count) in enumerate(parts.items(), 1)}
    path.write_text(json.dumps([{"image_id": 1, "category_id": 1, "score": 1, **flat}]))
    (record,) = read_results(path, skeleton="wholebody133")
    assert np.bincount(record.poses.keypoints_xy[0, :, 0].astype(int)).tolist() == [0, 17, 6, 68, 21, 21]


def test_csv_is_a_plain_table(tmp_path: Path) -> None:
    poses = some_poses(COCO, 2)
    xy = poses.keypoints_xy.copy()
    xy[1, COCO.index("nose")] = np.nan
    poses = Poses(xy, poses.scores, poses.boxes_xyxy, poses.box_scores, COCO)
    (path,) = write("csv", tmp_path / "people.csv", [Result(poses, "a, b.jpg", size_wh=(640, 480))])
    rows = list(plain_csv.DictReader(path.open(newline="")))
    assert len(rows[0]) == 14 + 3 * 17 and [row["person"] for row in rows] == ["0", "1"]
    assert rows[0]["image"] == "a, b.jpg" and rows[0]["skeleton"] == "coco17" and rows[0]["track_id"] == ""
    assert float(rows[0]["left_wrist_x"]) == pytest.approx(xy[0, COCO.index("left_wrist"), 0], abs=0.006)
    assert (rows[1]["nose_x"], rows[1]["nose_y"], rows[1]["nose_score"]) == ("", "", "0.0")


def test_a_table_may_be_sorted_otherwise_and_have_other_columns(tmp_path: Path) -> None:
    (path,) = write("csv", tmp_path, [Result(some_poses(COCO, 2, n), f"{n}.jpg") for n in range(2)])
    rows = list(plain_csv.DictReader(path.open(newline="")))
    turned = [{"note": "hello", **{k: row[k] for k in reversed(row)}} for row in (rows[3], rows[0], rows[2], rows[1])]
    for row in turned:
        row["track_id"] += ".0"  # as pandas writes it where a cell is empty
    with path.open("w", newline="") as file:
        writer = plain_csv.DictWriter(file, list(turned[0]))
        writer.writeheader()
        writer.writerows(turned)
    back = {record.image: record.poses for record in read_results(path)}
    assert list(back) == ["1.jpg", "0.jpg"]
    assert back["0.jpg"].track_ids.tolist() == [4, 5] and back["1.jpg"].track_ids.tolist() == [5, 4]
    np.testing.assert_allclose(back["0.jpg"].keypoints_xy, some_poses(COCO, 2, 0).keypoints_xy, atol=0.0065)


def test_columns_of_two_joints_never_get_one_name(tmp_path: Path) -> None:
    mine = Skeleton("mine", ("box", "nose"), oks_sigmas=[0.1, 0.1])
    with pytest.raises(PosezooError, match="two columns 'box_score'"):
        open_writer("csv", tmp_path, mine)


def test_parquet_is_typed(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (path,) = write("parquet", tmp_path, [Result(some_poses(COCO, 2), "a.mp4", 7, 0.28, (640, 480))], video=True)
    table = parquet.read_table(path)
    assert table.num_rows == 2 and table.num_columns == 14 + 3 * 17
    kinds = {field.name: str(field.type) for field in table.schema}
    assert (kinds["image"], kinds["frame"], kinds["nose_x"], kinds["time"]) == ("string", "int64", "float", "double")
    assert table["frame"].to_pylist() == [7, 7] and table["track_id"].to_pylist() == [4, 5]


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(PosezooError, match=r"the Parquet format needs pyarrow: pip install 'posezoo\[parquet\]'"):
        open_writer("parquet", tmp_path, COCO)


def test_what_formats_keep_is_said_in_known_words() -> None:
    assert all(format.keeps <= set(KEPT) and format.name == name for name, format in FORMATS.items())
