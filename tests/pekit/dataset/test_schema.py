"""Names of hops in the order of the hops."""

from pekit.dataset.schema import hop_names


def test_hop_2_comes_before_hop_10():
    assert hop_names(["z", "hop10", "hop2", "hop1", "hop", "hopped", "hop02"]) == [
        "hop1",
        "hop2",
        "hop10",
    ]
    assert hop_names({"hop2": 0, "hop10": 1})[-1] == "hop10"  # max() of the names is hop2
    assert hop_names(["z"]) == []
