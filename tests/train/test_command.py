"""``corea train`` from outside: what it prints, what it says when it is stopped, what it never imports early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corea.errors import ConfigError, ExtraMissing, InputError
from corea.train.stages import STAGES, in_order


def test_the_command_and_its_help_load_neither_torch_nor_numpy() -> None:
    asked = (
        "import sys\nfrom typer.main import get_command\nimport corea.cli.app as app\nget_command(app.app)\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'trl') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=100)
    assert told.stdout.strip() == "[]"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from corea.cli.train import train

    for name in [one for one in sys.modules if one.startswith("corea.train") and one != "corea.train.stages"]:
        monkeypatch.delitem(sys.modules, name)
    # What an import of a package that is not there raises, whether it is here or not.
    for name in ("numpy", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraMissing, match=r"run: pip install 'corea\[train\]'"):
        train(tmp_path / "train.toml")


def test_stages_run_in_their_order_whatever_the_order_they_were_named_in() -> None:
    assert in_order([]) == list(STAGES)
    assert in_order(["export", "warmup", "export"]) == ["warmup", "export"]
    with pytest.raises(InputError, match='no stage is called "rlhf"; there are: rollouts, warmup, rl'):
        in_order(["rl", "rlhf"])


def test_a_run_that_is_interrupted_says_how_to_go_on_and_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
    from corea.cli import train as verb
    from train import tiny

    base = tiny.save(tmp_path / "tiny", says=["It is 1.", "So it is 2."])
    config = tmp_path / "train.toml"
    config.write_text(
        f'base = "{base}"\noutput = "{tmp_path / "out"}"\n'
        '[data]\nheld_out = 0\n[[data.tasks]]\nname = "chain_sum"\ncount = 6\n'
        "[rollouts]\nsamples = 2\nmax_tokens = 8\nbatch = 4\n",
        encoding="utf-8",
    )
    rows = 0

    class Impatient(verb._Lines):
        def advance(self) -> None:
            nonlocal rows
            rows += 1
            if rows == 5:
                raise KeyboardInterrupt
            super().advance()

    with monkeypatch.context() as patched:
        patched.setattr(verb, "_Lines", Impatient)
        with pytest.raises(KeyboardInterrupt):
            verb.train(config, ["rollouts"])
    assert "the same command goes on from the last checkpoint there" in " ".join(capsys.readouterr().err.split())
    verb.train(config, ["rollouts"], json=True)
    out, err = capsys.readouterr()
    assert "12 replies wanted, 5 there already" in err
    assert "12 of 12 replies" in err
    assert json.loads(out) == {"stages": ["rollouts"], "report": None, "made": {}, "output": str(tmp_path / "out")}


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the train extra is not installed: see docs/training.md")
    from corea.cli.train import train

    with pytest.raises(ConfigError, match="give the path of a training configuration"):
        train(tmp_path / "none.toml")
