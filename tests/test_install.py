# SPDX-License-Identifier: GPL-2.0-or-later
"""What is installed works where no checkout is: wheel and source distribution, built and run without a network."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that must find nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
                          env={**environment, "PYTHONWARNINGS": "ignore", "HOME": str(cwd)})


def build(kind: str, source: Path, into: Path) -> Path:
    """Build a distribution with the installed hatchling, in place of one that would be fetched."""
    pytest.importorskip("hatchling")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", into, cwd=source)
    assert done.returncode == 0, done.stderr
    (made,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment that has the wheel, and of this one's packages all but zreplay."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home / "venv", with_pip=False)
    python = home / "venv" / "bin" / "python"
    # As "pip install" puts it there, but without asking an index for what it needs.
    done = run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet",
               "--disable-pip-version-check", wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).stdout.strip())
    # Looked at after the environment's own: what is in a directory that a .pth names is found, its .pth files are not.
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "zz-packages.pth").write_text("\n".join(paths) + "\n")
    return python.parent


def test_a_wheel_has_everything_that_is_read_at_run_time(wheel: Path) -> None:
    names = names_in(wheel)
    tracked = subprocess.run(["git", "ls-files", "traces", "model", "replay"], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout.split()
    assert set(tracked) <= names
    stray = {name for name in names - set(tracked) if ".dist-info/" not in name}
    # A file that is not committed yet is not a defect of the build; a cache would be.
    assert not [name for name in stray if "cache" in name or name.endswith(".pyc")]
    assert sum(name.endswith("/manifest.json") for name in names) == len(list((ROOT / "traces").glob("*/*/manifest.json")))


def test_pipx_finds_the_command_by_the_package_s_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        points = configparser.ConfigParser()
        points.read_string(archive.read(name).decode())
        metadata = archive.read(name.replace("entry_points.txt", "METADATA")).decode()
    assert list(points["console_scripts"]) == [PROJECT["name"]] == ["zreplay"]
    assert f"\nVersion: {PROJECT['version']}\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


def test_the_recorder_and_its_package_have_the_project_s_version() -> None:
    from traces.record.session import VERSION

    assert PROJECT["version"] == VERSION
    assert (ROOT / "debian" / "changelog").read_text().startswith(f"zreplay ({PROJECT['version']}) ")


def test_the_installed_command_replays_a_shipped_recording(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import replay, traces, model\nfor m in (replay, traces, model): print(m.__file__)",
                cwd=tmp_path)
    for line in where.stdout.splitlines():
        assert line.startswith(str(installed.parent)), line
    listed = run(installed / "zreplay", "info", "--json", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    paths = {Path(row["path"]).name: row["path"] for row in json.loads(listed.stdout)}
    assert set(paths) == {path.parent.name for path in (ROOT / "traces/samples").glob("*/manifest.json")}
    sample = paths["7.3-zstd-64k"]
    assert sample.startswith(str(installed.parent))
    for command in ([installed / "zreplay"], [installed / "python", "-m", "replay"]):
        done = run(*command, "replay", sample, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("PASS  ")
    version = run(installed / "zreplay", "--version", cwd=tmp_path)
    assert version.stdout.startswith(f"zreplay {PROJECT['version']}\n")


def test_the_installed_doctor_knows_what_it_needs(installed: Path, tmp_path: Path) -> None:
    program = ("from replay.tools import doctor\n"
               "print(sorted({extra for extra, _ in doctor.requirements()}))\n"
               "print(doctor._packages(doctor.Host()).state)")
    done = run(installed / "python", "-c", program, cwd=tmp_path)
    extras, state = done.stdout.splitlines()
    assert eval(extras) == ["", *sorted(PROJECT["optional-dependencies"])]
    assert state == "yes"


def test_a_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    holds = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    tracked = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n"))
    assert tracked - {""} <= holds
    assert not [name for name in holds - tracked if "cache" in name or name.endswith(".pyc")]
    for name in ("Makefile", "README.md", "LICENSE", "docs/install.md", "tests/conftest.py", "traces/record/build.py"):
        assert (source / name).is_file(), name
    again = build("wheel", source, tmp_path / "again")
    assert names_in(again) == names_in(wheel)
    # The recorder is built of it without anything installed.
    done = run(sys.executable, "-S", source / "traces/record/build.py", tmp_path / "recorder.pyz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage: zreplay-record" in run(sys.executable, "-S", tmp_path / "recorder.pyz", "--help", cwd=tmp_path).stdout
