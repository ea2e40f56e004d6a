"""Which pictures a detector has learnt from, those of the weights that it began with included: they cannot judge it later."""

from pathlib import Path

from pipeline.data.dataset import Split
from pipeline.errors import DataError
from pipeline.files import digest_file, read_json, write_json

PICTURES = "pictures.json"
"""Beside the weights: digests of the pictures' bytes, so that another name or split does not hide a picture."""


def save_pictures(folder: Path, train: Split, weights: str | None) -> None:
    """Write into `folder` what the detector there has learnt from: the split `train`, and what stands beside `weights`."""
    paths = [train.path(row) for row in range(len(train.images))]
    own = {digest_file(path) for path in paths if path.is_file()}
    before = None if weights is None else learnt_by(Path(weights).parent)
    write_json(folder / PICTURES, sorted(own | (before or frozenset())))


def learnt_by(folder: Path) -> frozenset[str] | None:
    """Digests of the pictures that the detector in `folder` has learnt from; None where it does not say."""
    file = folder / PICTURES
    if not file.exists():
        return None
    listed = read_json(file)
    if not isinstance(listed, list):
        raise DataError(file, "is no list of digests", "train again, or fetch the version anew")
    return frozenset(map(str, listed))
