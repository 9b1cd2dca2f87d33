"""Versions of packages, wherever the kit comes from."""

from importlib import metadata

from pekit.tracking.provenance import package_versions

NEEDS = ["torch>=2", "none-such", "x; extra == 'y'"]


def test_the_kit_on_the_path_and_not_installed(monkeypatch):
    """The usual way of a hosted notebook: the folder is attached, nothing is installed."""

    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert set(package_versions()) == {"python"}


def test_a_package_without_metadata_is_unknown(monkeypatch):
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["torch>=2", "none-such", "x; extra == 'y'"]
    )
    versions = package_versions()
    assert versions["torch"] == metadata.version("torch")
    assert versions["none-such"] == "unknown"
    assert "x" not in versions
