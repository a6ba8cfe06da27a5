"""Annotated photographs: readers, label cleaning, augmentation."""
