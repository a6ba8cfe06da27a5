"""The pipeline behind HTTP, and a page for it.

request -> gate (token, log) -> upload (bytes, bounded) -> service -> worker (one a model, its own thread) -> answer

`app.create_app` puts it together; `run.serve` listens. What a client may ask for is bounded by `settings.Settings`, and
what it is refused is a `refusals.Refusal`: a code, a status and one line. An answer to `POST /v1/predict` is

    {"model": "mobile_pose...", "skeleton": "coco17", "joints": ["nose", ...],
     "results": [{"image": "street.jpg", "width": 640, "height": 480,
                  "people": [{"box": [x1, y1, x2, y2], "box_score": 0.98, "score": 0.83,
                              "keypoints": [[x, y, score], ...]}], "error": null}],
     "timing_ms": {"read": 0.4, "wait": 0.1, "work": 41.0, "total": 42.1}}

with the people of `posezoo.formats.posezoo`. Nothing that a client sends is ever taken for a path or an address.
"""
