"""Pictures and videos in and out: files, folders, cameras and streams become RGB arrays, and arrays become files."""

from posezoo.media.images import Picture, check_image, find_images, load_picture, read_image, write_image
from posezoo.media.sources import Frame, Source, open_source
from posezoo.media.writer import VideoWriter

__all__ = [
    "Frame",
    "Picture",
    "Source",
    "VideoWriter",
    "check_image",
    "find_images",
    "load_picture",
    "open_source",
    "read_image",
    "write_image",
]
