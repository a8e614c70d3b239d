"""The poses that images are made for."""

from tendril.data.group.dihedral import Dihedral
from tendril.study.measures.pose_images import poses


def test_poses_are_those_the_group_has() -> None:
    assert poses(Dihedral(8)) == {0: "as it is", 2: "turned 90°", 4: "turned 180°", 8: "reflected"}
    assert poses(Dihedral(3, reflections=False)) == {
        0: "as it is",
        1: "turned 120°",
        2: "turned 240°",
    }
    assert poses(Dihedral(1)) == {0: "as it is", 1: "reflected"}
