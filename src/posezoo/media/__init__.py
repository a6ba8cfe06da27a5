"""Pictures in and out: files, folders and globs become RGB arrays, and arrays become files."""

from posezoo.media.images import Picture, check_image, find_images, load_picture, read_image, write_image

__all__ = ["Picture", "check_image", "find_images", "load_picture", "read_image", "write_image"]
