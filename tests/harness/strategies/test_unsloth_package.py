"""Unsloth is refused before anything heavy where its versions do not fit, and imported before what it patches.

A stub stands for the package here; the strategy itself is proved on a GPU, see tests/bench/unsloth_run.py.
"""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from memory_harness.configs.schema import RunConfig
from memory_harness.configs.strategies import with_fixed_settings
from memory_harness.harness.log.errors import ConfigError
from memory_harness.harness.log.records import ModelFacts, RunRecord, record_from_dict, record_to_dict
from memory_harness.harness.strategies import unsloth_package
from memory_harness.harness.strategies.unsloth_package import NEEDED, check_versions, import_unsloth

ROOT = Path(__file__).resolve().parents[3]
CONFIG = RunConfig().with_fields(strategy="unsloth", device="cuda")


def install_stub(folder, name, version, requires=(), code=""):
    """Put a package that consists of its metadata, and of `code`, where Python finds it."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n", "utf-8")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code, "utf-8")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def refusal():
    with pytest.raises(ConfigError) as caught:
        check_versions()
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.skipif("unsloth" in {d.name for d in metadata.distributions()}, reason="Unsloth is installed here")
def test_without_the_package_one_line_says_what_is_accepted():
    assert "unsloth is not installed, accepted: >=2026.10" in refusal()


def test_an_old_release_is_refused(site):
    install_stub(site, "unsloth", "2025.3.1")
    install_stub(site, "trl", "1.15.0")
    assert "unsloth 2025.3.1 installed, accepted: >=2026.10" in refusal()


def test_the_versions_that_unsloth_itself_names_are_compared(site):
    wants = ["transformers<=5.17.0,>=4.52.4", "trl<=1.15.0,>=0.18.2", "torch>=2.4.0", "xformers>=0.0.27"]
    install_stub(site, "unsloth", "2026.10.9", [*wants, 'peft<0.1; extra == "old"'])
    install_stub(site, "trl", "1.16.0")
    install_stub(site, "transformers", "5.23.0")
    line = refusal()
    assert "transformers 5.23.0 installed, accepted: <=5.17.0,>=4.52.4; " in line
    assert "trl 1.16.0 installed, accepted: <=1.15.0,>=0.18.2" in line
    assert "peft" not in line
    assert "xformers" not in line
    assert "pip install -e '.[unsloth]'" in line


def test_versions_that_fit_pass(site):
    install_stub(site, "unsloth", "2026.10.9", ["trl<=1.15.0", "unsloth_zoo>=2026.10.9"])
    install_stub(site, "unsloth_zoo", "2026.10.9")
    install_stub(site, "trl", "1.15.0")
    check_versions()


def test_the_needed_versions_are_those_of_the_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert tuple(project["optional-dependencies"]["unsloth"]) == NEEDED


def test_without_a_gpu_it_is_not_imported(site, monkeypatch):
    install_stub(site, "unsloth", "2026.10.9", code="raise AssertionError('imported')")
    install_stub(site, "trl", "1.15.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a CUDA GPU"):
        import_unsloth(CONFIG)


@pytest.mark.parametrize("early", unsloth_package.PATCHED)
def test_it_does_not_come_after_what_it_patches(site, monkeypatch, early):
    install_stub(site, "unsloth", "2026.10.9")
    install_stub(site, "trl", "1.15.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setitem(sys.modules, early, sys)
    with pytest.raises(ConfigError, match=f"{early}.* imported before unsloth; start a new process"):
        import_unsloth(CONFIG)


STUB_TORCH = "class cuda:\n    is_available = staticmethod(lambda: True)\n"
REPORTS = """import os, sys
early = [name for name in ("transformers", "peft", "trl", "memory_harness.harness.train.run") if name in sys.modules]
seen = {name: os.environ.get(name) for name in ("PYTORCH_ALLOC_CONF", "HF_HUB_OFFLINE")}
raise ImportError(f"early {early}, {seen}")
"""


@pytest.mark.parametrize("expandable", [False, True])
def test_a_worker_imports_it_first_offline_and_with_the_runs_allocator(site, tmp_path, expandable):
    install_stub(site, "unsloth", "2026.10.9", code=REPORTS)
    install_stub(site, "trl", "1.15.0")
    install_stub(site, "torch", "2.11.0", code=STUB_TORCH)
    config = CONFIG.with_fields(expandable_segments=expandable, samples=8)
    request = {"config": config.to_dict(), "log": str(tmp_path / "log.jsonl"), "counts": [], "snapshot": None}
    result = subprocess.run(
        [sys.executable, "-m", "memory_harness.probes.session.worker"],
        input=json.dumps(request) + "\n",
        env={"PYTHONPATH": f"{site}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    error = json.loads(result.stdout)["error"]
    assert "cannot be imported (early [], " in error
    assert f"'PYTORCH_ALLOC_CONF': 'expandable_segments:{expandable}', 'HF_HUB_OFFLINE': '1'" in error


def test_settings_that_unsloth_leaves_no_choice_in_are_as_it_has_them():
    config = with_fixed_settings(CONFIG.with_fields(kbit_upcast=True, loss="full", expand_kv=False, eval_batch_size=8))
    assert (config.model.kbit_upcast, config.train.loss, config.model.expand_kv) == (False, "chunked", True)
    assert config.model.offload_activations
    assert config.eval.eval_batch_size == 8
    assert not with_fixed_settings(config.with_fields(gradient_checkpointing=False)).model.offload_activations
    other = CONFIG.with_fields(strategy="qlora", kbit_upcast=True)
    assert with_fixed_settings(other) is other


def test_fallbacks_survive_the_log():
    facts = ModelFacts("m", 1, 1, 1, 1, 1, 1, 1, 1, 1, "random", fallbacks=("xformers is not installed",))
    run = RunRecord("cuda", {}, "", "", 1, 1, 1, 1, 1, "", {}, "", facts)
    assert record_from_dict(json.loads(json.dumps(record_to_dict(run)))) == run
