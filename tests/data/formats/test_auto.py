"""dataset=auto: the same bytes as the format named, its evidence printed; refused where the choice is open."""

from pathlib import Path

import pytest

from pipeline.data.formats.catalogue import SOURCES
from pipeline.errors import DataError
from pipeline.files import digest_tree
from tests.data.conftest import Ingest, dataset_config
from tests.data.formats.samples import source
from tests.data.formats.test_round_trips import written
from tests.data.formats.test_samples import picture, put


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "labelme"])
def test_auto_gives_the_bytes_of_the_named_format(
    ingest: Ingest, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, _ = written(tmp_path, source(tmp_path / "made", "box"), kind)
    named = digest_tree(ingest(kind, given))
    assert capsys.readouterr().out == ""
    assert digest_tree(ingest("auto", given)) == named
    assert f"ingest: dataset=auto: {kind}: " in capsys.readouterr().out


def test_every_format_has_settings_that_auto_can_give(root: Path) -> None:
    auto = dataset_config(root, "auto", source="x", one_based=True, upright=False, labels="*.csv")
    for kind in SOURCES:
        assert auto.as_format(kind).kind == kind
    assert auto.as_format("voc").one_based and not auto.as_format("yolo").upright and auto.as_format("csv").labels == "*.csv"


def test_what_fits_nothing_or_two_formats_is_refused(ingest: Ingest, tmp_path: Path) -> None:
    picture(tmp_path / "set/a.png")
    put(tmp_path / "set/notes.json", '{"author": "me"}')
    with pytest.raises(DataError, match="has no label file of a known format"):
        ingest("auto", tmp_path / "set")
    put(tmp_path / "set/a.xml", "<annotation><object><name>cat</name></object></annotation>")
    put(tmp_path / "set/boxes.csv", "filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,3,4\n")
    with pytest.raises(DataError, match=r"fits several formats:(\n  .*such as .*){2}\n  choose by dataset=\w+ or dataset="):
        ingest("auto", tmp_path / "set")


def test_a_few_strays_do_not_hide_the_format(ingest: Ingest, tmp_path: Path) -> None:
    given, _ = written(tmp_path, source(tmp_path / "made", "box"), "coco")
    put(given / "stray.xml", "<annotation></annotation>")
    assert (ingest("auto", given) / "dataset.json").is_file()
