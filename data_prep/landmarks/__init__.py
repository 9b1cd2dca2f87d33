"""The paper's 20 landmarks (section IV, "Keypoint pretraining").

table.py    landmarks from masks or from a CSV in mm, as a table
rules.py    the rules that find each landmark: name, rule, masks that it needs
scan.py, finders.py, organ.py     the geometry that the rules use
"""

from data_prep.landmarks.rules import landmark_rules
from data_prep.landmarks.table import from_masks, landmark_table, read_landmarks_csv, to_voxels

__all__ = ["from_masks", "landmark_rules", "landmark_table", "read_landmarks_csv", "to_voxels"]
