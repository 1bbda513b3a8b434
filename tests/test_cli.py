"""The command line: one function a command, one object under --json, one line and an exit code for an error."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dualanodiff.cli import app
from dualanodiff.errors import DataError
from dualanodiff.pretrain.cli import app as pretrain_app
from dualanodiff.progress import silent
from dualanodiff.settings import Settings, read_settings

COMMANDS = ["demo", "check", "fit", "generate", "mask", "pretrain", "import-official", "settings"]
SUMMARY = {"run": "runs/a", "steps": 500, "loss": 0.03, "seconds": 754.0, "shots": 6, "object_masks": "not used"}
SCRIPT = Path(sys.executable).with_name("dualanodiff")


@pytest.fixture(autouse=True)
def loud():
    """--json of one test must not silence the next."""
    token = silent.set(False)
    yield
    silent.reset(token)


@pytest.fixture(autouse=True)
def place(tmp_path_factory, monkeypatch):
    """A folder with the data and the run that most commands here name."""
    root = tmp_path_factory.mktemp("place")
    for name in ("data/train/good/0.png", "data/test/hole/0.png", "runs/a/config.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "runs/a/lineage.json").write_text('{"files": []}')
    monkeypatch.chdir(root)


@pytest.fixture
def calls(monkeypatch):
    """Every module that a command hands over to, replaced by one that notes what it was given."""
    seen = []

    def stub(module, function, result):
        def call(*args, **kwargs):
            seen.append((function, args, kwargs))
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: call}))

    return SimpleNamespace(seen=seen, stub=stub)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def fit_words(*more):
    return ["fit", "data", "--defect", "hole", "--out", "runs/a", *more]


# -- starting


def test_the_installed_command_starts():
    shown = subprocess.check_output([SCRIPT, "--version"], text=True)
    assert re.fullmatch(r"dualanodiff \d+\.\d+\.\d+\n", shown)


def test_the_package_starts_as_a_module():
    command = [sys.executable, "-m", "dualanodiff", "--version"]
    assert subprocess.check_output(command, text=True).startswith("dualanodiff ")


def test_help_lists_every_command_and_loads_no_torch():
    code = (
        "import sys; sys.argv[1:] = ['--help']\nimport atexit; atexit.register(lambda: print('torch' in sys.modules))"
    )
    shown = subprocess.check_output(
        [sys.executable, "-c", f"{code}\nfrom dualanodiff.cli import main; main()"], text=True
    )
    assert shown.splitlines()[-1] == "False"
    for name in COMMANDS:
        assert re.search(rf"^\W*{name} ", shown, re.MULTILINE), name


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "pretrain"])
def test_every_command_explains_itself_and_knows_json(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output


def test_every_pretrain_stage_knows_json():
    stages = [command.name or command.callback.__name__ for command in pretrain_app.registered_commands]
    assert {"pack", "autoencoder", "unet"} <= set(stages)
    for stage in stages:
        assert "--json" in run("pretrain", stage, "--help").output


# -- exit code 2: wrong usage


@pytest.mark.parametrize(
    "words",
    [
        ["fti"],
        ["fit"],
        ["fit", "data"],
        ["fit", "data", "--defect", "hole"],
        ["fit", "data", "--defect", "hole", "--out", "runs/a", "--step", "5"],
        ["generate", "runs/a", "--count", "many", "--out", "sets/a"],
        ["generate", "runs/a", "--count", "0", "--out", "sets/a"],
        ["mask", "sets/a", "--method", "magic"],
    ],
)
def test_wrong_usage_exits_2_and_does_nothing(words, calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY)
    result = run(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert calls.seen == []


# -- exit code 1: wrong input


def test_an_error_of_ours_is_one_line(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", DataError("data/x.png: truncated;\n  copy it again"))
    result = run(*fit_words())
    assert result.exit_code == 1
    assert result.stderr == "error: data/x.png: truncated; copy it again\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "runs/a/config.toml"), "runs/a/config.toml: Permission denied"),
        (OSError(28, "No space left on device", "runs/a/x"), "runs/a/x: No space left on device"),
        (OSError("no such device"), "no such device"),
    ],
)
def test_an_error_of_the_system_is_one_line(calls, error, line):
    calls.stub("dualanodiff.fit_folder", "fit_folder", error)
    result = run(*fit_words())
    assert (result.exit_code, result.stderr) == (1, f"error: {line}\n")


def test_an_error_is_an_object_too_under_json(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", DataError("data: no such folder"))
    result = run(*fit_words("--json"))
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[-1]) == {"error": "data: no such folder", "exit_code": 1}
    assert result.stderr == "error: data: no such folder\n"


def test_a_fault_of_our_own_is_not_hidden(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", ZeroDivisionError("a bug"))
    assert isinstance(run(*fit_words()).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "words",
    [
        fit_words("--set", "train.step=5"),
        ["generate", "runs/a", "--count", "1", "--out", "sets/a", "--set", "train.step=5"],
        ["mask", "sets/a", "--set", "train.step=5"],
        ["demo", "--set", "train.step=5"],
        ["check", "data", "--set", "train.step=5"],
        ["settings", "--set", "train.step=5"],
    ],
)
def test_an_unknown_setting_stops_before_anything_begins(words, calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY)
    result = run(*words)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: --set: unknown setting 'train.step'; did you mean 'train.")
    assert calls.seen == []


def test_an_absent_config_file_is_named(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY)
    result = run(*fit_words("--config", "none.toml"))
    assert (result.exit_code, result.stderr) == (1, "error: none.toml: no such settings file\n")
    assert calls.seen == []


# -- exit code 130: interrupted


def test_an_interrupt_says_that_the_work_is_kept(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", KeyboardInterrupt())
    result = run(*fit_words("--json"))
    assert result.exit_code == 130
    assert re.fullmatch(r"interrupted; all that was made so far is kept, .*--resume\)\n", result.stderr)
    assert json.loads(result.stdout.splitlines()[-1])["exit_code"] == 130


def test_control_c_in_a_real_process_ends_without_a_traceback():
    code = (
        "import sys, time, types\n"
        "def work(*_, **__): print('begun', flush=True); time.sleep(60)\n"
        "sys.modules['dualanodiff.fit_folder'] = types.SimpleNamespace(fit_folder=work)\n"
        f"sys.argv[1:] = {fit_words()}\n"
        "from dualanodiff.cli import main\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert errors.startswith("interrupted; ")
    assert len(errors.splitlines()) == 1


# -- exit code 0: what is passed on and what is said


def test_fit_passes_everything_on_and_says_what_to_type_next(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY)
    words = ["--category", "data", "--base", "sd", "--shots", "all", "--resume"]
    result = run(*fit_words(*words, "--set", "seed=3", "--set", "train.max_train_steps=9"))
    assert result.exit_code == 0
    expected = {
        "defect": "hole",
        "category": "data",
        "out": Path("runs/a"),
        "base": "sd",
        "shots": "all",
        "config": None,
        "assignments": {"seed": "3", "train.max_train_steps": "9"},
        "resume": True,
    }
    assert calls.seen == [("fit_folder", (Path("data"),), expected)]
    assert "6 shots in 500 steps and 12 min 34 s" in result.stdout
    assert "dualanodiff generate runs/a --count 100 --out SET" in result.stdout


def test_fit_says_what_found_the_objects_and_where_the_previews_are(calls, tmp_path):
    (tmp_path / "preview").mkdir()
    (tmp_path / "preview" / "step-00000004.png").touch()
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY | {"object_masks": "threshold"})
    shown = run("fit", "data", "--defect", "hole", "--out", tmp_path).stdout
    assert "Object masks for the background: threshold\n" in shown
    assert f"Look at {tmp_path / 'preview'}. Next: " in shown


def test_fit_without_options_takes_the_documented_defaults(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY)
    run(*fit_words())
    given = calls.seen[0][2]
    assert (given["base"], given["shots"], given["resume"]) == ("mini", "first-third", False)
    assert given["assignments"] == {}


def test_json_is_the_only_and_last_line(calls):
    calls.stub("dualanodiff.fit_folder", "fit_folder", SUMMARY | {"run": Path("runs/a")})
    result = run(*fit_words("--json"))
    assert [json.loads(line) for line in result.stdout.splitlines()] == [SUMMARY]


def test_generate_passes_everything_on(calls):
    calls.stub("dualanodiff.generation", "generate_set", {"set": "sets/a", "count": 5, "made": 2, "empty": [1]})
    result = run("generate", "runs/a", "--count", 5, "--out", "sets/a", "--seed", 7, "--normals", "good", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["count"] == 5
    expected = {"count": 5, "out": Path("sets/a"), "seed": 7, "assignments": {}, "normals": Path("good"), "onto": None}
    assert calls.seen == [("generate_set", (Path("runs/a"),), expected)]


def test_generate_passes_on_what_is_asked_of_defects_on_good_pictures(calls):
    summary = {"set": "sets/a", "count": 5, "made": 2, "empty": [], "met": {"area": 0.8}, "attempts": 1.5, "sheet": "s"}
    calls.stub("dualanodiff.generation", "generate_set", summary)
    words = ["--onto", "good", "--box", "1,2,3,4", "--area", "9", "--mix", "runs/b=0.5", "--defects", 2]
    result = run("generate", "runs/a", "--count", 5, "--out", "sets/a", *words)
    assert result.exit_code == 0
    assert "As asked for: area 80%; 1.5 attempts a defect. Look at s" in result.stdout
    wishes = {"goods": "good", "box": "1,2,3,4", "area": "9", "mix": ["runs/b=0.5"], "defects": 2}
    assert calls.seen[0][2]["onto"] == wishes


def test_mask_passes_on_only_what_was_asked_for(calls):
    calls.stub("dualanodiff.masks.remake", "remake_masks", {"count": 4, "method": "u2net", "empty": [2]})
    result = run("mask", "sets/a", "--method", "u2net", "--model", "u2.onnx", "--set", "mask.threshold=0.25")
    assert calls.seen == [
        ("remake_masks", (Path("sets/a"),), {"method": "u2net", "model": Path("u2.onnx"), "threshold": 0.25})
    ]
    assert result.stdout == "4 masks by u2net are in sets/a/mask; 1 parts show no defect\n"


def test_mask_takes_no_setting_that_it_would_ignore(calls):
    calls.stub("dualanodiff.masks.remake", "remake_masks", {})
    result = run("mask", "sets/a", "--set", "seed=1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: --set seed: the masks of a set depend on mask.method, ")
    assert calls.seen == []


def test_demo_ends_with_the_commands_for_ones_own_data(calls):
    calls.stub("dualanodiff.demo", "run_demo", {"grid": "runs/demo/grid.png"})
    result = run("demo")
    assert calls.seen == [("run_demo", (Path("runs/demo"),), {"seed": 0, "assignments": {}})]
    assert "runs/demo/grid.png" in result.stdout
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("  dualanodiff ")] == [
        "check",
        "fit",
        "generate",
    ]


def test_an_imported_run_can_be_generated_from(calls):
    calls.stub("dualanodiff.official_run", "import_official", {"run": "my runs/a"})
    result = run("import-official", "weights.bin", "--base", "sd", "--out", "my runs/a")
    assert calls.seen == [("import_official", (Path("weights.bin"),), {"base": "sd", "out": Path("my runs/a")})]
    assert "dualanodiff generate 'my runs/a' --count 100 --out SET" in result.stdout


def test_printed_settings_are_a_config_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(run("settings", "--set", "train.learning_rate=1e-3").stdout, encoding="utf-8")
    assert read_settings(path) == Settings().updated({"train.learning_rate": 1e-3}, "test")
    changed = run("settings", "--config", path, "--set", "seed=4", "--json")
    assert json.loads(changed.stdout) == read_settings(path).updated({"seed": 4}, "test").to_dict()


@pytest.mark.parametrize("words", [("fit", "nowhere", "--defect", "stain"), ("check", "nowhere"), ("adapt", "nowhere")])
def test_a_wrong_folder_is_refused_before_the_slow_imports(words: tuple[str, ...], tmp_path: Path) -> None:
    code = "import sys; from dualanodiff.cli import app\ntry: app()\nfinally: print('torch' in sys.modules)"
    out = [] if words[0] == "check" else ["--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", code, *words, *out], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere: no folder can be opened here" in done.stderr
    assert done.stdout.split()[-1] == "False"
