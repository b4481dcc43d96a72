import in_turn
import pytest
from scored import made_up, supernet

from gapless.commands.app import run
from gapless.studies import compare as study

__all__ = ["gapless", "made_up", "supernet"]


@pytest.fixture
def gapless(capsys, tmp_path, monkeypatch):
    """Run a command in an empty folder and return (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        capsys.readouterr()
        status = run([str(a) for a in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def inside(monkeypatch):
    """Do jobs in this process."""
    monkeypatch.setattr(study.Here, "run", in_turn.run)
