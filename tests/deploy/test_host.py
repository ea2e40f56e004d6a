"""Which hosts get 7-bit weights, told by planted /proc/cpuinfo files."""

from pathlib import Path

import pytest

from pipeline.deploy.host import reduced_range

SKYLAKE = "processor\t: 0\nflags\t\t: fpu sse4_1 avx2 avx512f avx512bw avx512vl\n"
CASCADE_LAKE = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni md_clear\n"
ALDER_LAKE = "processor\t: 0\nmodel name\t: x\nflags\t\t: fpu avx2 avx_vnni\n"
LOOKS_LIKE_IT = "processor\t: 0\nmodel name\t: avx512_vnni edition\nflags\t\t: fpu avx2 xavx512_vnni\n"


@pytest.mark.parametrize(
    "cpuinfo, machine, reduced",
    [
        (SKYLAKE, "x86_64", True),
        (CASCADE_LAKE, "x86_64", False),
        (ALDER_LAKE, "AMD64", False),
        (LOOKS_LIKE_IT, "x86_64", True),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "aarch64", False),
        (None, "x86_64", True),  # not told: the careful answer
        (None, "arm64", False),
    ],
)
def test_auto_asks_the_host(tmp_path: Path, cpuinfo: str | None, machine: str, reduced: bool) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    found = reduced_range("auto", tmp_path / "cpuinfo", machine)
    assert found.on == reduced and found.why.startswith("auto: ")


def test_a_setting_is_followed_and_said(tmp_path: Path) -> None:
    for wanted, text in ((True, "quantize.reduce_range=true"), (False, "quantize.reduce_range=false")):
        found = reduced_range(wanted, tmp_path / "none", "x86_64")
        assert (found.on, found.why) == (wanted, text)
