"""ExaBGP's log: one for each child, of bounded size, and one from before."""

from pathlib import Path

from pycni.bgp import child


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.iterdir())


def test_each_child_has_a_log_and_the_last_ones_is_kept(tmp_path: Path) -> None:
    for life in (b"first", b"second", b"third"):
        with child.open_log(tmp_path) as log:
            log.write(life)

    assert names(tmp_path) == ["exabgp.log", "exabgp.log.1"]
    assert (tmp_path / "exabgp.log").read_bytes() == b"third"
    assert (tmp_path / "exabgp.log.1").read_bytes() == b"second"


def test_log_that_is_too_long_is_cut_off_under_its_writer(tmp_path: Path) -> None:
    with child.open_log(tmp_path) as log:
        log.write(b"a" * child.MAX_LOG + b"end")
        log.flush()

        child.cut_log(tmp_path)
        log.write(b"again")

    assert (tmp_path / "exabgp.log").read_bytes() == b"again"
    old = (tmp_path / "exabgp.log.1").read_bytes()
    assert (len(old), old[-4:]) == (child.MAX_LOG, b"aend")


def test_log_of_usual_length_stays_and_an_absent_one_is_nothing(tmp_path: Path) -> None:
    child.cut_log(tmp_path)
    (tmp_path / "exabgp.log").write_bytes(b"a" * child.MAX_LOG)

    child.cut_log(tmp_path)

    assert names(tmp_path) == ["exabgp.log"]
    assert (tmp_path / "exabgp.log").stat().st_size == child.MAX_LOG


def test_log_is_cut_off_where_its_end_cant_be_kept(tmp_path: Path) -> None:
    (tmp_path / "exabgp.log").write_bytes(b"a" * (child.MAX_LOG + 1))
    (tmp_path / "exabgp.log.1").mkdir()

    child.cut_log(tmp_path)

    assert (tmp_path / "exabgp.log").stat().st_size == 0


def test_exabgp_logs_from_the_level_on_that_it_is_told(tmp_path: Path) -> None:
    levels = [
        child.environment(settings)["exabgp.log.level"]
        for settings in (
            child.ChildSettings(tmp_path),
            child.ChildSettings(tmp_path, log_level="ERROR"),
        )
    ]

    assert levels == ["WARNING", "ERROR"]
