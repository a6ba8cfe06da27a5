"""Pictures of what was found: skeletons, boxes, ids, names and trails, and pictures side by side."""

from posezoo.draw.beside import side_by_side
from posezoo.draw.poses import draw_poses
from posezoo.draw.themes import DEFAULT, THEMES, Theme, get_theme
from posezoo.draw.trails import Trails

__all__ = ["DEFAULT", "THEMES", "Theme", "Trails", "draw_poses", "get_theme", "side_by_side"]
