"""Completion in a real bash: installed by the command that the README names, and asked for by TAB."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from simexm.cli import completion
from tests.cli.terminal import Terminal, environment
from tests.markdown import ROOT, make_shell

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to complete in")

CASES = {
    "simexm ver": ["verify"],
    "simexm in": ["ingest", "info"],
    "simexm run --ov": ["--overwrite"],
    "simexm run --clu": ["--cluster"],
    "simexm run my": ["my.json", "my.yaml"],
    "simexm run o": ["old.ini"],
    "simexm run ": ["my.json", "my.yaml", "old.ini"],
    "simexm run my.yaml --cluster ": [f"cluster_configs/{n}" for n in ("local.yaml", "lsf.yaml", "slurm.yaml")],
    "simexm submit my.yaml --cluster cluster_configs/sl": ["cluster_configs/slurm.yaml"],
    "simexm run my.yaml --device g": ["gpu"],
    "simexm run my.yaml --model p": ["physical"],
    "simexm info ": ["out.zarr", "results/older.zarr"],
    "simexm info results/": ["results/older.zarr"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder, which is the working folder too, in whose bash completion has been installed."""
    place = tmp_path_factory.mktemp("home")
    make_shell(place)
    shutil.copytree(ROOT / "cluster_configs", place / "cluster_configs", ignore=shutil.ignore_patterns("*_gpu.yaml"))
    for folder in ("out.zarr", "results/older.zarr", "empty"):
        (place / folder).mkdir(parents=True)
    (place / "my.yaml").write_text("# a spec\nsource: labels.zarr\nstages: []\n")
    (place / "my.json").write_text('{\n  "stages": []\n}\n')
    (place / "old.ini").write_text("[groundtruth]\n")
    (place / "other.yaml").write_text("neither: nor\n")
    done = bash(place, "simexm --install-completion; true")
    assert "bash completion installed" in done, done
    assert "simexm" in (place / ".bashrc").read_text()
    return place


def variables(place: Path) -> dict[str, str]:
    path = f"{place}/bin:{environment()['PATH']}"
    return {"HOME": str(place), "PATH": path, "HISTFILE": "", "PS1": "$ ", "BASH_SILENCE_DEPRECATION_WARNING": "1"}


def bash(place: Path, program: str) -> str:
    """Run a program in bash; what it prints."""
    done = subprocess.run(
        ["bash", "--norc", "-c", program], cwd=place, env=environment(**variables(place)), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("line", CASES)
def test_what_is_offered(line: str, home: Path) -> None:
    """What bash's own completion function puts into COMPREPLY."""
    program = f"""
        source "$HOME/.bashrc"
        COMP_WORDS=({line}{' ""' if line.endswith(" ") else ""}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        $(complete -p simexm | sed 's/.*-F \\([^ ]*\\) .*/\\1/') simexm
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert bash(home, program).split() == CASES[line]


def test_tab_in_a_terminal(home: Path) -> None:
    """A command, then a file two folders down, which the shell completes by itself; then the command runs."""
    (home / "a" / "b").mkdir(parents=True)
    (home / "a" / "b" / "deep.yaml").write_text("")
    with Terminal(["bash", "--rcfile", str(home / ".bashrc"), "-i"], home, **variables(home)) as shell:
        shell.press("simexm sche\t")
        assert shell.until("simexm schema "), shell.seen
        shell.press("\x15simexm run a/b/de\t")
        assert shell.until("deep.yaml "), shell.seen
        shell.press("\x15simexm --vers\t\r")
        assert shell.until("simexm 0."), shell.seen


def test_a_folder_that_is_not_there_offers_nothing() -> None:
    assert completion.specs("nowhere/at/all/") == []
    assert completion.one_of("auto", "cpu")("x") == []
