"""What `posezoo predict` does: sources in, results and annotated pictures and videos out.

    sources -> read ahead -> estimate (in batches) -> keep -> track -> smooth -> draw -> write

`run` tells pictures from videos; `pictures` and `frames` are the two loops; `follow`, `paint` and `record` are steps.
"""

from posezoo.predict.report import Report
from posezoo.predict.request import MIN_SCORE, VIDEO_FORMATS, Look, Request
from posezoo.predict.run import predict

__all__ = ["MIN_SCORE", "VIDEO_FORMATS", "Look", "Report", "Request", "predict"]
