import pytest
from scored import made_up, supernet

from gapless.commands.app import run
from gapless.studies import compare as study
from gapless.studies.jobs import Came

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

    def run(self, jobs, told):
        for job in jobs:
            told(job, None)
            job.work(**job.given)
            told(job, Came("ended"))
        return {job.name: Came("ended") for job in jobs}

    monkeypatch.setattr(study.Here, "run", run)
