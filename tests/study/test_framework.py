"""The study framework: a study from outside runs, is reused, is indexed and can be made again."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tendril.data.cli import Outcome
from tendril.data.errors import ConfigError, ReportDamagedError
from tendril.study.__main__ import main
from tendril.study.core.index import write_index
from tendril.study.core.report import write_csv, write_records
from tendril.study.registry import STUDIES
from tendril.study.run import study, with_fields

CONFIG = '''
from dataclasses import dataclass

from tendril.study.core.config import StudyConfig, at_least


@dataclass(frozen=True)
class CountConfig(StudyConfig):
    """Counts the letters of a word."""

    word: str = "tendril"
    """The word."""
    times: int = 1
    """How often it is written."""

    def check(self) -> None:
        at_least(self, times=1)
'''
STUDY = """
from tendril.study.core.report import write_csv
from tendril.study.core.study import Study

from .config import CountConfig


class CountStudy(Study):
    name, config = "count", CountConfig

    def find(self, config):
        return config.word * config.times

    def identity(self, config, inputs):
        return {"text": inputs}

    def title(self, config, inputs):
        return f"Letters of <{inputs}>"

    def label(self, config, inputs):
        return config.word

    def compute(self, config, inputs, device):
        return {letter: inputs.count(letter) for letter in sorted(set(inputs))}

    def figures(self, findings):
        return {"letters": len(findings), "counts": findings}

    def headline(self, figures):
        return f"{figures['letters']} different letters."

    def write_tables(self, findings, folder):
        write_csv(folder / "letters.csv", ["letter", "count"], findings.items())

    def page(self, config, inputs, findings):
        return {"lead": "Letters, counted.", "counts": findings}
"""
PAGE = """{% extends "base.html" %}
{% block body %}<ul>
{% for letter, count in counts.items() %}<li>{{ letter }} {{ count }}</li>{% endfor %}
</ul>{% endblock %}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds a study of somebody's own, as the current folder."""
    folder = tmp_path / "count"
    folder.mkdir()
    files = {"__init__.py": "", "config.py": CONFIG, "study.py": STUDY, "page.html": PAGE}
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TENDRIL_HOME", raising=False)
    yield tmp_path


def run(*words: str) -> Outcome:
    return main(["count/study.py:CountStudy", "--device", "cpu", *words])


def test_a_study_from_outside_runs_is_reused_and_appears_in_the_index(outside: Path) -> None:
    first = run("--word", "aba")
    report = Path(str(first.result["report"]))
    assert first.result["letters"] == 2 and not first.result["reused"]
    assert "counts" not in first.result, "the last line is short"
    assert "2 different letters." in first.sentence and first.next_command == f"open {report}"
    page = report.read_text()
    assert "<li>a 2</li>" in page and "Letters of &lt;aba&gt;" in page
    assert 'href="letters.csv"' in page
    assert (report.parent / "letters.csv").read_text() == "letter,count\na,2\nb,1\n"
    again = run("--word", "aba")
    assert again.result["reused"] and again.result["report"] == str(report)
    assert not run("--word", "aba", "--times", "2").result["reused"]
    index = Path("reports/index.html").read_text()
    assert f'href="{report.parent.name}/index.html"' in index
    assert index.count("2 different letters.") == 2


def test_the_rerun_command_finds_the_same_report(outside: Path) -> None:
    home = outside / "a home"
    made = run("--word", "it's", "--times", "3", "--home", str(home), "--overwrite")
    report = Path(str(made.result["report"]))
    about = json.loads((report.parent / "about.json").read_text())
    words = shlex.split(about["command"])
    assert words[:2] == ["tendril", "study"] and "--overwrite" not in words
    assert about["command"] in report.read_text().replace("&#39;", "'").replace("&#34;", '"')
    again = main(words[2:])
    assert again.result["reused"] and again.result["report"] == str(report)


def test_a_dry_run_makes_nothing(outside: Path) -> None:
    told = run("--dry-run")
    assert told.result["dry_run"] and not told.result["exists"]
    assert not Path("reports").exists()
    run()
    assert run("--dry-run").result["exists"]


def test_mistakes_are_sentences(outside: Path) -> None:
    with pytest.raises(ConfigError, match="--times must be 1 or more; got 0"):
        run("--times", "0")
    with pytest.raises(ConfigError, match="Did you mean curves"):
        main(["curvs"])
    with pytest.raises(ConfigError, match="there is no file nowhere"):
        main(["nowhere.py:Study"])
    with pytest.raises(ConfigError, match="must define a class Nothing"):
        main(["count/study.py:Nothing"])
    with pytest.raises(ConfigError, match="got orientation"):
        study("curves", orientation=3.0)


def test_fields_of_nested_configs_are_given_by_name() -> None:
    config = with_fields(STUDIES["curves"].config(), {"echo": 0.2, "run": "a", "radii": (8.0,)})
    assert config.run == "a"
    assert config.curves.radii == (8.0,)
    assert config.curves.thresholds.echo == 0.2
    assert config.curves.thresholds.resultant == 0.85


def test_an_index_of_no_reports_says_what_makes_one(tmp_path: Path) -> None:
    page = write_index(str(tmp_path))
    assert "There are no reports yet" in page.read_text()
    outcome = main(["index", "--home", str(tmp_path)])
    assert outcome.result == {"index": str(page)}


def test_a_report_that_cannot_be_read_does_not_stop_the_index(tmp_path: Path) -> None:
    damaged = tmp_path / "reports" / "curves-0123456789ab"
    damaged.mkdir(parents=True)
    (damaged / "result.json").write_text("{")
    assert "curves-0123456789ab" in write_index(str(tmp_path)).read_text()


def test_cells_that_a_spreadsheet_would_run_are_quoted(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["token", "value"], [("=1+1", -1.5), ("-0.5", 2), ("@x", 3)])
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["token,value", "'=1+1,-1.5", "-0.5,2", "'@x,3"]
    write_records(tmp_path / "b.csv", [{"a": 1, "b": "x"}])
    assert (tmp_path / "b.csv").read_text() == "a,b\n1,x\n"


def test_a_report_of_which_a_file_has_changed_is_refused_and_made_again(outside: Path) -> None:
    report = Path(str(run("--word", "aba").result["report"])).parent
    for name, old, new in (
        ("result.json", '"letters": 2', '"letters": 3'),
        ("index.html", "a 2", "a 3"),
        ("letters.csv", "a,2", "a,3"),
        ("about.json", "2 different", "3 different"),
    ):
        path = report / name
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(ReportDamagedError, match=rf"{name}.*changed.*with --overwrite\."):
            run("--word", "aba")
        assert run("--word", "aba", "--overwrite").result["letters"] == 2
        assert run("--word", "aba").result["reused"]


def test_the_index_shows_no_figures_of_a_damaged_report(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Path(str(run("--word", "aba").result["report"])).parent
    path = report / "about.json"
    path.write_text(path.read_text().replace("2 different", "3 different"))
    page = write_index().read_text()
    assert "3 different" not in page and "This report is damaged." in page
    assert "about.json has changed" in capsys.readouterr().err


def test_a_report_without_digests_is_reused_or_its_file_is_named(outside: Path) -> None:
    report = Path(str(run("--word", "aba").result["report"])).parent
    (report / "result.json").write_text('{"letters": 2}')
    assert run("--word", "aba").result["reused"]
    (report / "result.json").write_text('{"counts": {}}')
    with pytest.raises(ReportDamagedError, match=r"result\.json must hold the figures of.*count"):
        run("--word", "aba")


def test_temporary_files_of_a_killed_study_are_removed(outside: Path) -> None:
    report = Path(str(run("--word", "aba").result["report"])).parent
    left = [report / "index.html.12.part", report.parent / "index.html.12.part"]
    for path in left:
        path.write_text("half")
    run("--word", "aba", "--overwrite")
    assert not any(path.exists() for path in left)
