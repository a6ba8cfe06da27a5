"""CMU's JSON, OpenPose's older form: one file an image, with the body of 18 points alone.

    {"version": 0.1, "bodies": [{"joints": [x, y, score, ...]}], "posezoo": {"skeleton": "coco17", ...}}

The order is Nose, Neck, RShoulder, RElbow, RWrist, LShoulder, LElbow, LWrist, RHip, RKnee, RAnkle, LHip, LKnee, LAnkle,
REye, LEye, REar, LEar. "posezoo" is that of `posezoo.formats.openpose`.
"""

from __future__ import annotations

from posezoo.formats.openpose import Layout
from posezoo.formats.places import BODY_18

CMU = Layout("bodies", {"joints": BODY_18}, bodies=(BODY_18,), person_id=False, ending=".json")
