"""Keypoint sets: each is sound, agrees with its dataset, and maps to the others by name; a wrong file is named."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from posezoo.errors import PosezooError, UnknownNameError
from posezoo.skeletons import COLORS, Skeleton, get_skeleton, list_skeletons, map_joints

SIZES = {
    "aic14": 14, "coco17": 17, "crowdpose14": 14, "halpe136": 136, "halpe26": 26, "halpe68": 68, "hand21": 21,
    "jhmdb15": 15, "mhp16": 16, "mpii16": 16, "posetrack17": 17, "trb40": 40, "wholebody133": 133,
}  # fmt: skip

# the sets whose dataset has no sigmas at all: ours come from elsewhere, and the files say from where
BORROWED_SIGMAS = {"trb40", "hand21"}

TOML = """
name = "mine"
joints = ["nose", "left_eye", "right_eye"]
mirror = [["left_eye", "right_eye"]]
edges = [["nose", "left_eye"], ["nose", "right_eye"]]
oks_sigmas = [0.026, 0.025, 0.025]
joint_weights = [1, 1.5, 1.5]
[parts]
eyes = ["left_eye", "right_eye"]
[colors]
left = "#0102ff"
eyes = "#ABCDEF"
"""


def written(tmp_path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_all_thirteen_sets_are_there():
    assert {name: len(get_skeleton(name)) for name in list_skeletons()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_a_set_is_sound(name):
    s = get_skeleton(name)
    assert s.name == name and s.paper
    assert s is get_skeleton(name)
    rows = np.arange(len(s))
    assert (s.mirror_index[s.mirror_index] == rows).all()
    assert (s.mirror_index != rows).sum() == 2 * len(s.mirror)
    assert [(s.joints[a], s.joints[b]) for a, b in s.edge_index] == list(s.edges)
    assert s.oks_sigmas.shape == s.joint_weights.shape == (len(s),)
    assert (s.oks_sigmas > 0).all() and (s.joint_weights > 0).all()
    assert set(COLORS) <= set(s.colors) or name == "hand21"
    # twins share what does not depend on the side
    assert np.array_equal(s.oks_sigmas[s.mirror_index], s.oks_sigmas) or name in (
        "aic14",
        "wholebody133",
        "posetrack17",
    )
    with pytest.raises(ValueError, match="read-only"):
        s.oks_sigmas[0] = 1


@pytest.mark.parametrize("name", SIZES)
def test_sides_follow_the_names(name):
    s = get_skeleton(name)
    for joint in s.joints:
        words = joint.split("_")
        if "left" in words or "right" in words:
            assert s.side(joint) == ("left" if "left" in words else "right")
        elif not joint.startswith("face-"):
            assert s.side(joint) == "center"
    for left, right in s.mirror:
        assert (s.side(left), s.side(right)) == ("left", "right")


@pytest.mark.parametrize("name", SIZES)
def test_parts_are_symmetric_and_cover_the_person(name):
    s = get_skeleton(name)
    assert set().union(*s.parts.values()) == set(s.joints)
    twin = {s.joints[row]: s.joints[other] for row, other in enumerate(s.mirror_index)}
    for part, joints in s.parts.items():
        other = {"left_hand": "right_hand", "right_hand": "left_hand"}.get(part, part)
        assert {twin[j] for j in joints} == set(s.parts[other])
    if "upper_body" in s.parts:
        assert not set(s.parts["upper_body"]) & set(s.parts["lower_body"])


@pytest.mark.parametrize("name", SIZES)
def test_sets_agree_with_the_reference(shared, name):
    reference = json.loads((shared / "reference" / "skeletons.json").read_text())["sets"][name]
    s = get_skeleton(name)
    assert list(s.joints) == reference["joints"]
    assert {frozenset(p) for p in s.mirror} == {frozenset(p) for p in reference["mirror"]}
    ours, theirs = ({frozenset(e) for e in edges} for edges in (s.edges, reference["edges"]))
    assert theirs <= ours
    assert all(joint.startswith("face-") for edge in ours - theirs for joint in edge)  # contours are our own
    assert bool(reference["sigmas"]) is (name not in BORROWED_SIGMAS)
    if reference["sigmas"]:
        assert s.oks_sigmas.tolist() == reference["sigmas"]
    assert s.joint_weights.tolist() == reference.get("joint_weights", [1.0] * len(s))
    assert list(s.parts.get("upper_body", [])) == reference.get("upper_body", list(s.parts.get("upper_body", [])))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("coco17", "coco/test_coco.json"), ("mhp16", "mhp/test_mhp.json"), ("aic14", "aic/test_aic.json"),
        ("crowdpose14", "crowdpose/test_crowdpose.json"), ("trb40", "mpii/test_mpii_trb.json"),
        ("jhmdb15", "jhmdb/test_jhmdb_sub1.json"), ("hand21", "onehand10k/test_onehand10k.json"),
        ("posetrack17", "posetrack18/annotations/test_posetrack18_val.json"),
    ],
)  # fmt: skip
def test_joint_order_is_that_of_the_annotations(shared, name, file):
    table = json.loads((shared / "samples" / file).read_text())["categories"][0]["keypoints"]
    names = [n.lower().replace(" ", "_").replace("-", "_") for n in table]
    if name == "crowdpose14":
        names = ["top_head" if n == "head" else n for n in names]
    assert names == list(get_skeleton(name).joints)


def test_face_points_run_from_the_persons_right(shared):
    annotations = json.loads((shared / "samples/coco/test_coco_wholebody.json").read_text())["annotations"]
    faces = [np.reshape(a["face_kpts"], (68, 3)) for a in annotations if a["face_valid"]]
    eyes = [np.reshape(a["keypoints"], (17, 3))[1:3, 0] for a in annotations if a["face_valid"]]
    s = get_skeleton("wholebody133")
    assert len(faces) == 4
    for face, (left_eye, right_eye) in zip(faces, eyes, strict=True):
        for left, right in s.mirror:
            if left in ("face-16", "face-45"):  # the ends of the jaw, the outer corners of the eyes
                difference = face[int(left[5:]), 0] - face[int(right[5:]), 0]
                assert difference * (left_eye - right_eye) > 0


def test_halpe_sets_are_parts_of_each_other():
    whole, body, hands = (get_skeleton(n) for n in ("halpe136", "halpe26", "halpe68"))
    assert whole.joints[:26] == body.joints == hands.joints[:26]
    assert tuple(j for j in whole.joints if not j.startswith("face-")) == hands.joints
    assert {p: len(whole.parts[p]) for p in ("body", "feet", "face", "left_hand", "right_hand")} == {
        "body": 20, "feet": 6, "face": 68, "left_hand": 21, "right_hand": 21,
    }  # fmt: skip


def test_unknown_names_are_errors_that_help():
    with pytest.raises(UnknownNameError, match="unknown skeleton 'coco18'; did you mean coco17"):
        get_skeleton("coco18")
    with pytest.raises(UnknownNameError, match="skeleton 'aliases'"):
        get_skeleton("aliases")
    with pytest.raises(UnknownNameError, match="joint of coco17 'left_elbo'; did you mean left_elbow"):
        get_skeleton("coco17").index("left_elbo")
    with pytest.raises(UnknownNameError):
        get_skeleton("coco17").side("neck")


def test_equal_by_name_and_joints_also_after_pickling():
    s = get_skeleton("coco17")
    copy = pickle.loads(pickle.dumps(s))
    assert copy == s and hash(copy) == hash(s) and copy is not s
    assert s != get_skeleton("posetrack17")
    assert (map_joints(copy, get_skeleton("halpe26")) == map_joints(s, get_skeleton("halpe26"))).all()


def test_your_own_skeleton(tmp_path):
    s = Skeleton.from_toml(written(tmp_path, TOML))
    assert s == Skeleton.from_toml(str(tmp_path / "mine.toml"))
    assert s.mirror_index.tolist() == [0, 2, 1] and s.edge_index.tolist() == [[0, 1], [0, 2]]
    assert s.joint_weights.tolist() == [1, 1.5, 1.5]
    assert s.color("left_eye") == (0xAB, 0xCD, 0xEF)  # its part before its side
    assert s.side_color("left") == (1, 2, 255) and s.color("nose") == COLORS["center"]
    bare = Skeleton.from_toml(written(tmp_path, 'name = "b"\njoints = ["a"]\noks_sigmas = [0.1]'))
    assert bare.mirror_index.tolist() == [0] and bare.edge_index.shape == (0, 2) and bare.joint_weights.tolist() == [1]
    assert map_joints(get_skeleton("coco17"), s).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"nose", "left', '"left_eye", "left', "joint 'left_eye' is listed twice"),
        ('"nose", "left', '" nose", "left', "joint name ' nose'"),
        ('["nose", "left_eye", "right_eye"]', "[]", "no joints"),
        ('["nose", "left_eye", "right_eye"]', '"nose"', "'joints' must be a list"),
        ('mirror = [["left_eye", "right_eye"]]', 'mirror = [["left_eye", "right_ear"]]', "unknown joint 'right_ear'"),
        ('mirror = [["left_eye", "right_eye"]]', 'mirror = [["left_eye", "left_eye"]]', "a joint with itself"),
        (
            'mirror = [["left_eye", "right_eye"]]',
            'mirror = [["left_eye", "right_eye"], ["nose", "right_eye"]]',
            "'right_eye' is in the mirror pairs",
        ),
        ('mirror = [["left_eye", "right_eye"]]', 'mirror = [["right_eye", "left_eye"]]', "name the left joint first"),
        ('mirror = [["left_eye", "right_eye"]]', 'mirror = [["left_eye"]]', "expected a pair of joint names"),
        ('edges = [["nose", "left_eye"]', 'edges = [["nose", "chin"]', r"'chin'\]: unknown joint 'chin'"),
        ('edges = [["nose", "left_eye"]', 'edges = [["nose", "nose"]', "joins a joint to itself"),
        ('edges = [["nose", "left_eye"]', 'edges = [["right_eye", "nose"]', "is listed twice"),
        ("[0.026, 0.025, 0.025]", "[0.026, 0.025]", "oks_sigmas has 2 values for 3 joints"),
        ("[0.026, 0.025, 0.025]", "[0.026, 0, 0.025]", "oks_sigmas of 'left_eye' is 0.0, expected above 0"),
        ("[0.026, 0.025, 0.025]", "[0.026, nan, 0.025]", "oks_sigmas of 'left_eye' is nan"),
        ("[0.026, 0.025, 0.025]", '[0.026, "x", 0.025]', "'oks_sigmas' has 'x', expected a number"),
        ("[1, 1.5, 1.5]", "[1, -1.5, 1.5]", "joint_weights of 'left_eye' is -1.5"),
        ("[1, 1.5, 1.5]", "[1]", "joint_weights has 1 values for 3 joints"),
        ("[1, 1.5, 1.5]", "1", "'joint_weights' must be a list"),
        ('eyes = ["left_eye", "right_eye"]', 'eyes = ["left_eye", "mouth"]', "part 'eyes': unknown joint 'mouth'"),
        ('eyes = ["left_eye", "right_eye"]', 'eyes = ["left_eye", "left_eye"]', "part 'eyes': joint 'left_eye'"),
        ('left = "#0102ff"', 'lefft = "#0102ff"', "unknown side or part in colors 'lefft'; did you mean left"),
        ('left = "#0102ff"', 'left = "blue"', "'colors.left' is 'blue', expected a colour"),
        ("joint_weights", "joint_wieghts", "unknown key 'joint_wieghts'; did you mean joint_weights"),
        ('name = "mine"', "", "'name' is missing"),
        ('name = "mine"', "name = 3", "'name' is 3, expected a text"),
        ("[parts]\neyes", "parts", "'parts' must be a table"),
        ("joints = [", "joints = ", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_the_wrong_value(tmp_path, old, new, message):
    assert TOML.count(old) >= 1
    path = written(tmp_path, TOML.replace(old, new, 1))
    with pytest.raises(PosezooError, match=message) as caught:
        Skeleton.from_toml(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PosezooError, match=r"no such file: .*none\.toml"):
        Skeleton.from_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("source", SIZES)
def test_mapping_between_sets(source):
    s = get_skeleton(source)
    assert map_joints(s, s).tolist() == list(range(len(s)))
    for target in list_skeletons():
        t = get_skeleton(target)
        there, back = map_joints(s, t), map_joints(t, s)
        for row, found in enumerate(there):
            assert found == -1 or back[found] == row  # one to one
            if found >= 0:
                assert s.side(s.joints[found]) == t.side(t.joints[row])


@pytest.mark.parametrize(
    ("source", "target", "joint", "found"),
    [
        ("mpii16", "coco17", "left_wrist", "left_wrist"),
        ("mpii16", "coco17", "nose", None),
        ("mpii16", "halpe26", "head", "head_top"),
        ("mpii16", "halpe26", "neck", "thorax"),
        ("mpii16", "halpe26", "hip", "pelvis"),
        ("crowdpose14", "aic14", "head_top", "top_head"),
        ("crowdpose14", "aic14", "neck", "neck"),
        ("trb40", "mpii16", "upper_neck", "neck"),
        ("posetrack17", "mpii16", "upper_neck", "head_bottom"),
        ("jhmdb15", "halpe26", "head", None),  # the middle of the face is not the crown
        ("aic14", "halpe26", "neck", None),  # below the chin, not between the shoulders
        ("halpe136", "wholebody133", "face-30", "face-30"),
        ("wholebody133", "hand21", "thumb1", None),  # a hand of unknown side
    ],
)
def test_aliases(source, target, joint, found):
    s, t = get_skeleton(source), get_skeleton(target)
    row = map_joints(s, t)[t.index(joint)]
    assert (s.joints[row] if row >= 0 else None) == found


def test_a_users_set_maps_by_plain_name():
    mine = Skeleton("mine", ("neck", "head"), oks_sigmas=[0.1, 0.1])
    assert map_joints(get_skeleton("halpe26"), mine).tolist() == [18, 17]
    assert map_joints(mine, get_skeleton("jhmdb15"))[:3].tolist() == [0, -1, 1]


def test_trb_head_and_neck_are_mpiis(shared):
    trb, mpii = get_skeleton("trb40"), get_skeleton("mpii16")
    rows = map_joints(mpii, trb)
    people = {
        p["image"]: np.array(p["joints"]) for p in json.loads((shared / "samples/mpii/test_mpii.json").read_text())
    }
    file = json.loads((shared / "samples/mpii/test_mpii_trb.json").read_text())
    names = {image["id"]: image["file_name"] for image in file["images"]}
    for annotation in file["annotations"]:
        keypoints = np.reshape(annotation["keypoints"], (40, 3))
        shown = (rows >= 0) & (keypoints[:, 2] > 0)
        assert shown[[trb.index("head"), trb.index("neck")]].all()
        np.testing.assert_allclose(keypoints[shown, :2], people[names[annotation["image_id"]]][rows[shown]], atol=1e-3)
