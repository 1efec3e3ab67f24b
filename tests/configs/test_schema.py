"""The configuration: round trips, changes by field name, fingerprints."""

import dataclasses
import json
import typing
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_harness.configs.flags import field_help
from memory_harness.configs.schema import SECTIONS, RunConfig, config_from_dict, section_by_field
from memory_harness.configs.values import from_text, to_text, without_none

ANY_OF: dict[type, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**40),
    float: st.floats(0, 10, allow_nan=False),
    bool: st.booleans(),
    str: st.text("abz_/.-", min_size=5),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    kind, optional = without_none(hint)
    if typing.get_origin(kind) is Literal:
        values: st.SearchStrategy[Any] = st.sampled_from(typing.get_args(kind))
    elif typing.get_origin(kind) is tuple:
        values = st.lists(ANY_OF[str], min_size=1).map(tuple)
    else:
        values = ANY_OF[kind]
    return st.none() | values if optional else values


configs = st.builds(
    RunConfig,
    **{
        name: st.builds(cls, **{field: values_of(hint) for field, hint in typing.get_type_hints(cls).items()})
        for name, cls in SECTIONS.items()
    },
)


@given(configs)
def test_a_configuration_survives_json(config):
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(configs)
def test_what_help_shows_can_be_given_as_a_flag(config):
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            hint = typing.get_type_hints(cls)[field.name]
            value = getattr(getattr(config, section), field.name)
            if hint is not bool and field.metadata.get("unit") != "bytes":
                assert from_text(to_text(value, field), hint, field) == value


@given(configs, configs)
def test_equal_fingerprints_mean_equal_runs(one, other):
    def content(config: RunConfig) -> dict[str, Any]:
        return {name: values for name, values in config.to_dict().items() if name != "output"}

    assert (one.fingerprint() == other.fingerprint()) == (content(one) == content(other))


def test_settings_that_came_later_leave_the_fingerprints_of_before():
    assert RunConfig().fingerprint() == "2759266e219c", "the names of folders and the gate hang on it"
    assert RunConfig().with_fields(gpu_file="cards.toml").fingerprint() != RunConfig().fingerprint()


def test_the_output_folder_does_not_change_the_fingerprint():
    assert RunConfig().with_fields(output="x").fingerprint() == RunConfig().fingerprint()
    assert RunConfig().with_fields(seed=1).fingerprint() != RunConfig().fingerprint()


def test_fields_are_changed_in_the_section_they_are_in():
    config = RunConfig().with_fields(eval_batch_size=1, max_length=64)
    assert (config.eval.eval_batch_size, config.data.max_length) == (1, 64)
    assert config.with_fields(eval_batch_size=8, max_length=2048) == RunConfig()
    with pytest.raises(KeyError, match="epoch"):
        config.with_fields(epoch=1)


def test_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match=r"section train: epoch$"):
        config_from_dict({"train": {"epoch": 1}})


def test_field_names_are_unique_across_sections():
    for name, cls in SECTIONS.items():
        assert [section_by_field()[field.name] for field in dataclasses.fields(cls)] == [name] * len(
            dataclasses.fields(cls)
        )


def test_sections_are_those_of_the_configuration():
    assert {f.name: type(getattr(RunConfig(), f.name)) for f in dataclasses.fields(RunConfig)} == SECTIONS


def test_field_help_is_the_string_under_the_field():
    source = 'class A:\n    "about A"\n    x: int = 1\n    "about x"\n    y: int\n    z: int\n    "about z"\n'
    assert field_help(source) == {("A", "x"): "about x", ("A", "z"): "about z"}
