"""`run_probe.py --against NAME==VERSION`: what an upgrade of a library changes, by line of code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from memory_harness.probes.session.layer import installed_version
from tests.e2e.commands import run_probe
from tests.probes.session.test_layer import wheel

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "dry" / "trainer_lora.py"
BEFORE = "\n                if active_adapter not in self.lora_variant:  # vanilla LoRA\n"
MISTAKE = "\n                self.kept = x.detach().double()"


def sources(package: str) -> dict[str, str]:
    """Return the sources of an installed package, by path."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    found = sorted(folder.rglob("*.py"))
    return {path.relative_to(folder.parent).as_posix(): path.read_text(encoding="utf-8") for path in found}


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> dict[str, str]:
    """The environment in which pip knows one release of peft alone, which keeps its inputs in float64."""
    folder = tmp_path_factory.mktemp("index")
    peft = sources("peft")
    layer = "peft/tuners/lora/layer.py"
    assert BEFORE in peft[layer]
    peft[layer] = peft[layer].replace(BEFORE, MISTAKE + BEFORE)
    wheel(folder / "wheels", "peft", "0.99.1", peft)
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


@pytest.mark.slow
def test_a_release_that_takes_more_is_named_by_its_line(offline, tmp_path):
    dry = ("--dry-run", str(SCRIPT), "--gpu", "t4", "--steps", "2", "--json", "report.json")
    ended = run_probe("--against", "peft==0.99.1", *dry, folder=tmp_path, environment=offline)
    assert ended.code == 1, ended.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "worse"
    largest = report["peak_by_line"][0]
    assert largest["code"] == MISTAKE.strip()
    assert largest["site_after"].startswith("peft/tuners/lora/layer.py:")
    assert (largest["site_before"], largest["before_bytes"]) == ("", 0)
    (peft,) = [one for one in report["differences"] if one["name"] == "peft"]
    assert (peft["before"], peft["after"]) == (installed_version("peft"), "0.99.1")
    # the lines add up to what the peak rose by, nearly all of it by that one, which several layers call
    (peak,) = [one for one in report["changes"] if one["kind"] == "peak allocated" and one["phase"] is None]
    rise = peak["after"] - peak["before"]
    assert sum(one["difference_bytes"] for one in report["peak_by_line"]) == rise
    by_mistake = sum(one["difference_bytes"] for one in report["peak_by_line"] if one["code"] == MISTAKE.strip())
    assert by_mistake == pytest.approx(rise, rel=0.1)
    allowed = run_probe(
        "--against", "peft==0.99.1", "--fail-on-increase", "1 GiB", *dry, folder=tmp_path, environment=offline
    )
    assert allowed.code == 0, allowed.stderr


@pytest.mark.slow
def test_a_version_that_no_index_has_is_one_line(offline, tmp_path):
    ended = run_probe("--against", "peft==0.98", folder=tmp_path, environment=offline)
    assert ended.code == 2
    assert "the package index has no peft==0.98" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_transformers_of_its_first_supported_release(tmp_path):
    """Needs a package index; that release is some 10 MB."""
    flags = ("--max-length", "512", "--samples", "40", "--json", "report.json")
    ended = run_probe(
        "--against", "transformers==5.17", *flags, folder=tmp_path, environment={"XDG_CACHE_HOME": str(tmp_path)}
    )
    if "cannot be reached" in ended.stderr:
        pytest.skip("no package index")
    assert ended.code in (0, 1), ended.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    versions = {one["name"]: (one["before"], one["after"]) for one in report["differences"]}
    assert versions["transformers"] == ("5.17.0", installed_version("transformers"))
    # generation keeps some 0.4 MB less; the peaks of training and evaluation are the same
    allocated = [o for o in report["changes"] if o["kind"] == "peak allocated" and o["phase"] != "GENERATE"]
    assert len(allocated) > 4
    assert all(one["before"] == one["after"] for one in allocated)
