"""The commands as a person types them: help, mistakes, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from station import arguments
from station.cli import _COMMANDS, main

COMMANDS = sorted(_COMMANDS)


@pytest.fixture
def workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["init", str(tmp_path / "ws")]) == 0
    capsys.readouterr()
    return tmp_path / "ws"


def said(capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"example: station {command}" in " ".join(capsys.readouterr().out.split())


def test_the_common_options_stand_before_a_command_or_after() -> None:
    for line in (
        ["--verbose", "--workspace", "w", "check"],
        ["check", "--verbose", "--workspace=w"],
    ):
        args = arguments.parse(line)
        assert (args.workspace, args.verbose) == (Path("w"), True)
    args = arguments.parse(["check"])
    assert (args.workspace, args.verbose) == (Path(), False)


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    # argparse puts the help of a long name on the next line.
    assert set(COMMANDS) <= {line.split()[0] for line in lines if line.startswith("    ")}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "fly",
        "snap",
        "snap --out a.png --exposure-us nan",
        "snap --out a.png --gain-db -1",
        "capture --sheets 0",
        "capture --sheets x",
        "capture --split val",
        "capture --label",
        "capture --label ../x",
        "capture --label Nut",
        "capture --label é",
        "inspect --sheets -1",
        "score --model a/1 --threshold nan f.png",
        "score --model a/1 --threshold 1 --recipe r f.png",
        "sim --speed 0",
        "sim --size 10",
        "sim --defect-rate 1.1",
        "sim --size ²x²",
        "sim --size 99999x99999",
        "sim --seed -1",
        "where --name Übel",
        "where --name a_b",
        "sim --address 8.8.8.8",
        "sim --address 300.1.1.1",
        "fault --address localhost state",
        "train --input-size 100",
        "train --model ../x",
        "train --model glassfiber/1",
        "train --images 0",
        "train --seed -1",
        "train --tiles 9",
        "bench cycle --seed 1e3",
    ],
)
def test_a_wrong_command_line_ends_with_usage_and_code_2(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert "usage: station" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "inspect --sheets x",
            "argument --sheets: a whole number from 1 on is needed, not 'x'",
        ),
        ("sim --speed fast", "argument --speed: a number above zero is needed, not 'fast'"),
        (
            "train --input-size 100",
            "argument --input-size: a multiple of 32 from 64 to 2048 is needed, not '100'",
        ),
        ("score --model a/1 --threshold nan f.png", "a finite number is needed, not 'nan'"),
        ("capture --label Nut", "argument --label: lower-case letters, digits, - and _"),
        ("check --workspace=", "argument --workspace: a folder is needed, not ''"),
        ("sim --size 10", "argument --size: a size such as 1224x1024, of at most 8192 pixels"),
    ],
)
def test_a_wrong_value_is_answered_with_what_the_option_takes(
    line: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(line.split())
    *_, last = said(capsys)[1]
    assert expected in last


def test_a_folder_whose_name_cannot_be_a_models_ends_with_code_2(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workspace / "My Data"
    (folder / "train" / "good").mkdir(parents=True)
    assert main(["train", "--dataset", str(folder), "--workspace", str(workspace)]) == 2
    (line,) = said(capsys)[1]
    assert "'My Data' cannot be a model's name; choose one with --model" in line


def test_the_simulators_command_keeps_its_own_options() -> None:
    args = arguments.parse(
        ["sim", "--speed", "4", "--", "station", "capture", "--sheets", "2", "--json"]
    )
    assert args.rest in (
        ["--", "station", "capture", "--sheets", "2", "--json"],
        ["station", "capture", "--sheets", "2", "--json"],
    )
    assert args.sheets is None


@pytest.mark.parametrize("command", ["inspect", "capture", "check", "where", "label --from x"])
def test_a_folder_that_is_no_workspace_ends_with_one_line_and_code_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--workspace", str(tmp_path)]) == 2
    out, err = said(capsys)
    assert out == []
    assert len(err) == 1
    assert "is no workspace" in err[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "inspect",
            "no active recipe; name one with --recipe or `station use NAME`; there are: glassfiber",
        ),
        ("inspect --recipe none", "no recipe 'none' in"),
        ("capture --recipe ../recipes/glassfiber", "lower-case letters"),
        ("use none", "no recipe 'none' in"),
        ("capture --recipe glassfiber --cell none.yaml", "none.yaml: no such cell file"),
        ("check --recipe wrong", "recipes/wrong.yaml:1: x: unknown key"),
        ("check --recipe=", "recipe ''"),
        ("capture --recipe=", "recipe ''"),
        ("snap --out a.jpg", "a.jpg: pictures are kept lossless; name a .png file"),
        ("snap --out none/a.png", "none: no such folder"),
        ("draw --model glassfiber --out a.png", "a.png: drawn as SVG; name it so"),
        (
            "train --dataset none --detector gaussian --steps 9",
            "--steps: this detector has no such setting",
        ),
    ],
)
def test_a_mistake_ends_with_one_line_and_code_2(
    workspace: Path, command: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "recipes" / "wrong.yaml").write_text("x: 1\n")
    before = sorted(workspace.rglob("*"))
    assert main([*command.split(), "--workspace", str(workspace)]) == 2
    out, err = said(capsys)
    assert out == []
    assert len(err) == 1, err
    assert err[0].startswith("station: ")
    assert expected in err[0]
    assert sorted(workspace.rglob("*")) == before, "nothing half written"


def test_an_empty_name_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["init", ""])
    assert "argument dir: a folder is needed, not ''" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_recipe_does_not_keep_the_others_from_being_checked(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = workspace / "recipes"
    (recipes / "wrong.yaml").write_text("x: 1\n")
    (recipes / "folder.yaml").mkdir()
    (recipes / "link.yaml").symlink_to("nowhere")
    (recipes / "Bad Name.yaml").write_text((recipes / "soak.yaml").read_text())
    monkeypatch.chdir(workspace)
    assert main(["check"]) == 2
    out, err = said(capsys)
    assert err == []
    errors = [line.removeprefix("error    ") for line in out if line.startswith("error")]
    assert sorted(errors) == [
        "Bad Name: recipe 'Bad Name': lower-case letters, digits, - and _ only",
        "folder: recipes/folder.yaml: a folder, not a recipe's file",
        "link: recipes/link.yaml: a link that leads nowhere, not a recipe's file",
        "wrong: recipes/wrong.yaml:1: x: unknown key (and 11 more)",
    ]
    assert any(line.startswith("ok       soak: ") for line in out)


def test_an_inspection_without_a_model_says_what_is_missing(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "recipes" / "glassfiber.yaml"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("model:", "threshold:"))]
    path.write_text("\n".join(kept) + "\n")
    arguments = ["--workspace", str(workspace), "--cell", str(workspace / "calibration/sim.yaml")]
    assert main(["inspect", "--recipe", "glassfiber", *arguments]) == 2
    assert "recipes/glassfiber.yaml: model: needed to inspect" in said(capsys)[1][0]


def test_a_model_that_is_not_there_ends_with_code_4(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workspace / "recipes" / "glassfiber.yaml"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("model:", "threshold:"))]
    path.write_text("\n".join([*kept, "model: none/1", "threshold: 0.5"]) + "\n")
    arguments = ["--workspace", str(workspace), "--cell", str(workspace / "calibration/sim.yaml")]
    assert main(["inspect", "--recipe", "glassfiber", *arguments]) == 4
    assert "no model 'none/1'" in said(capsys)[1][0]
    assert not (workspace / "data" / "glassfiber").exists()


def test_schemas_for_editors_are_written(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", str(workspace / ".vscode")]) == 0
    out, _ = said(capsys)
    assert [Path(line).name for line in out] == ["recipe.schema.json", "cell.schema.json"]
    for line in out:
        assert json.loads(Path(line).read_text())["type"] == "object"


def test_the_active_recipe_is_set_and_said(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["use", "glassfiber", "--workspace", str(workspace)]) == 0
    assert said(capsys)[0] == ["active recipe: glassfiber"]
    assert (workspace / "run" / "recipe").read_text() == "glassfiber"


def test_labels_that_match_nothing_say_so(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "truth").mkdir()
    line = ["label", "--recipe", "glassfiber", "--from", str(workspace / "truth")]
    assert main([*line, "--workspace", str(workspace)]) == 5
    out, err = said(capsys)
    assert out == []
    (problem,) = err
    assert "truth: belongs to none of the 0 pictures captured in" in problem


def test_labels_from_a_folder_that_is_not_there_end_with_code_5(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["label", "--recipe", "glassfiber", "--from", str(workspace / "none")]
    assert main([*line, "--workspace", str(workspace)]) == 5
    assert "no such folder" in said(capsys)[1][0]


def test_a_schema_folder_that_is_a_file_ends_with_one_line(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "file").write_text("")
    assert main(["schema", str(workspace / "file")]) == 2
    assert len(said(capsys)[1]) == 1


def test_a_fault_nobody_knows_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "faults", "--faults", "dark", "eclipse"]) == 2
    (problem,) = said(capsys)[1]
    assert "no 'eclipse'; there are: robot, camera, protective stop" in problem
    assert problem.endswith("out of focus, repeated")
