"""Learn how a detector's boxes differ from annotated ones, for `augment.proposals`; compare samples with the real ones.

    python scripts/fit_proposals.py people/annotations.json people/images -o src/posezoo/data/proposals.json \\
        --note "photographs of Leeds Sports Pose Extended, Flickr8k and COCO"

The detector is the embedded one, or the boxes of a file (--boxes, as `posezoo predict` takes them). One picture in five
is kept for the comparison; the numbers written are of all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from posezoo.data import proposals
from posezoo.data.coco_style import read_people
from posezoo.data.proposals import Pairs, Proposals
from posezoo.detect.boxes_file import BoxesFile
from posezoo.detect.embedded import open_detector
from posezoo.skeletons import get_skeleton


def main() -> None:
    """Read the arguments, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--boxes", type=Path, help="a file of detected boxes, instead of the embedded detector")
    parser.add_argument("--skeleton", default="coco17")
    parser.add_argument("--note", default="photographs", help="what the pictures are, for the file")
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--poses", type=int, default=8)
    given = parser.parse_args()
    people = read_people(given.annotations, given.images, get_skeleton(given.skeleton))
    if given.boxes:
        found, whose = proposals.boxes_of_file(BoxesFile.read(given.boxes), people), given.boxes.name
    else:
        found, whose = proposals.boxes_of_detector(open_detector(), people), "the embedded detector"
    pairs = proposals.pair(people, found)
    held_out = pairs.people.image_row % 5 == 0
    learnt = proposals.fit(pairs.where(~held_out), given.components, given.poses)
    compare(learnt, pairs.where(held_out))
    how = f"{whose} on {len(found)} {given.note}: {len(pairs)} of {len(people)} people found at an IoU of 0.5 or more"
    proposals.save(proposals.fit(pairs, given.components, given.poses, how=how), given.output)
    print(f"{how} -> {given.output}")


def compare(learnt: Proposals, pairs: Pairs) -> None:
    """Print how samples overlap with annotated boxes, and how the detector's own do."""
    people = pairs.people
    print(f"log density of held-out boxes: {proposals.log_likelihood(learnt, pairs):.3f}")
    for name, boxes in (("detector", pairs.detected_xyxy), ("sampled", proposals.draw_all(0, learnt, people))):
        overlap = proposals.iou(boxes, people.boxes_xyxy)
        spread = " ".join(f"{v:.3f}" for v in np.percentile(overlap, [10, 25, 50, 75, 90]))
        print(f"{name}: mean IoU {overlap.mean():.3f}, at 10 25 50 75 90 %: {spread}, {len(overlap)} people")


if __name__ == "__main__":
    main()
