from pathlib import Path

from controlplane.supervisor.child_log import MAX_LINE, ChildLog


def test_lines_are_passed_on_whole_and_kept(tmp_path: Path) -> None:
    said: list[str] = []
    log = ChildLog(tmp_path / "child.log", said.append)
    log.feed(b"one\ntw")
    assert said == ["one"]
    log.feed(b"o\n\xff\nend")
    assert said == ["one", "two", "\ufffd"]
    log.close()
    assert said[-1] == "end"
    assert (tmp_path / "child.log").read_bytes() == b"one\ntwo\n\xff\nend\n"


def test_the_file_is_bounded(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "child.log", lambda line: None, max_bytes=1000)
    for number in range(1000):
        log.feed(b"%d\n" % number)
    log.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) <= 2100
    assert log.tail[-1] == "999"


def test_a_line_without_an_end_is_cut(tmp_path: Path) -> None:
    said: list[str] = []
    log = ChildLog(tmp_path / "child.log", said.append)
    log.feed(b"x" * (MAX_LINE + 1))
    assert len(said) == 1
    log.close()
