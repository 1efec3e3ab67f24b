"""Programs that call Unsloth, read by their syntax and never run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from memory_harness.configs.recipes.draft import Draft, Refused, Target, tables
from memory_harness.configs.recipes.rules import read_bits, read_shared, widest

MODEL_CLASSES = ("FastLanguageModel", "FastModel", "FastVisionModel")
_PATCHED = ("SFTConfig", "DPOConfig", "ORPOConfig", "CPOConfig", "KTOConfig", "GRPOConfig", "RewardConfig")
"""configurations of TRL, whose defaults Unsloth replaces"""
_CONFIGS = (*_PATCHED, "TrainingArguments", "UnslothTrainingArguments", "Seq2SeqTrainingArguments")
_KINDS = ("config", "trainer", "get_peft_model", "from_pretrained")
_ANSWERS_ONLY = "train_on_responses_only"
_OBJECTIVES = {"SFT": "sft", "Unsloth": "sft", "DPO": "dpo", "ORPO": "orpo", "CPO": "cpo"}
_EMBEDDINGS = ("embed_tokens", "lm_head")
_OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


class Call(NamedTuple):
    """A call that decides the training, and its arguments by name."""

    kind: str
    name: str
    values: dict[str, Any]


def calls_in(tree: ast.Module, target: Target) -> list[Call]:
    """Return the calls that decide a training, in their order, with names replaced by what they were given before."""
    unreached: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Constant) and not node.test.value:
            unreached.update(*map(ast.walk, node.body))
    reached = [node for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.Call)) and node not in unreached]
    names: dict[str, Any] = {}
    found = []
    for node in sorted(reached, key=lambda node: (node.end_lineno, node.end_col_offset, isinstance(node, ast.Assign))):
        if isinstance(node, ast.Assign):
            value = _value(node.value, names, target)
            names |= {name.id: value for name in node.targets if isinstance(name, ast.Name)}
        elif kind := _kind(node.func):
            arguments = {keyword.arg or "**": keyword.value for keyword in node.keywords}
            first = {"from_pretrained": "model_name", "config": "output_dir"}.get(kind, "model")
            arguments |= {f"argument {number}" if number else first: part for number, part in enumerate(node.args)}
            values = {key: _value(part, names, target) for key, part in arguments.items()}
            found.append(Call(kind, ast.unparse(node.func).rpartition(".")[2], values))
    return found


def _kind(function: ast.expr) -> str:
    """Return what a function is for: the model, its adapter, the configuration, the trainer; empty for others."""
    owner, _, name = ast.unparse(function).rpartition(".")
    if owner in MODEL_CLASSES and name in ("from_pretrained", "get_peft_model"):
        return name
    if name.endswith("Trainer") and not name.startswith("Patch"):
        return "trainer"
    return {_ANSWERS_ONLY: _ANSWERS_ONLY}.get(name, "config" if name in _CONFIGS else "")


def _value(node: ast.expr, names: Mapping[str, Any], target: Target) -> Any:
    try:
        return _constant(node, names, target)
    except (ValueError, TypeError, ArithmeticError):
        return Refused(ast.unparse(node), "known only when the program runs")


def _constant(node: ast.expr, names: Mapping[str, Any], target: Target) -> Any:
    """Return the value of an expression of constants. Raises ValueError, TypeError, ArithmeticError: it is none."""
    match node:
        case ast.Name(name) if name in names and not isinstance(names[name], Refused):
            return names[name]
        case ast.Attribute(ast.Name("torch"), name):
            return name
        case ast.List(parts) | ast.Tuple(parts):
            return [_constant(part, names, target) for part in parts]
        case ast.UnaryOp(ast.Not(), part):
            return not _constant(part, names, target)
        case ast.BinOp(left, operation, right) if type(operation) in _OPERATIONS:
            numbers = [float(_constant(part, names, target)) for part in (left, right)]
            result = _OPERATIONS[type(operation)](*numbers)
            return int(result) if result.is_integer() else result
        case ast.Call(function) if ast.unparse(function).endswith("16_supported"):
            return target.has_bfloat16
    return ast.literal_eval(node)


def settings_of(calls: Sequence[Call]) -> dict[str, Any]:
    """Return the settings of the first call of each kind, those of the trainer before those of the model.

    A name to which another call gives another value has that call before it. A further call is a setting of its own.
    """
    first = {call.kind: call for call in reversed(calls)}
    settings: dict[str, Any] = {}
    for call in [first[kind] for kind in (*_KINDS, _ANSWERS_ONLY) if kind in first]:
        for key, value in call.values.items():
            is_same = settings.setdefault(key, value) == value
            settings[key if is_same else f"{call.name}.{key}"] = value
    for call in [call for call in calls if call is not first[call.kind]]:
        settings[f"{call.name} (again)"] = Refused("...", "the first call counts")
    if "trainer" in first:
        settings["trainer"] = first["trainer"].name
    return settings


def read_unsloth(draft: Draft, calls: Sequence[Call]) -> None:
    """Read the settings of a program that calls Unsloth."""
    names = {call.kind: call.name for call in reversed(calls)}
    draft.put("strategy", "unsloth")
    if names.get("config", _PATCHED[0]) in _PATCHED:
        draft.defaults |= tables()["unsloth_configs"]
    _read_trainer(draft, answers_only=_ANSWERS_ONLY in names)
    bits = 4 * bool(draft.get("load_in_4bit") and not draft.get("full_finetuning"))
    read_bits(draft, 8 if draft.get("load_in_8bit") else bits, "load_in_8bit", "load_in_4bit")
    draft.put("dtype", draft.get("dtype") or widest(draft), "dtype", "bf16", "fp16")  # mixed precision follows it
    if not draft.gives("dtype"):
        draft.remarks.append(f"dtype=None is {widest(draft)} on {draft.target.card}")
    wanted = draft.get("use_gradient_checkpointing")
    draft.defaults["gradient_checkpointing"] = bool(wanted)
    draft.put("offload_activations", "hidden_states" if wanted else False, "use_gradient_checkpointing")
    if wanted is True:
        draft.refuse("use_gradient_checkpointing", "offload_activations=yes stands in, as that strategy does always")
    draft.defaults["finetuning_type"] = "lora" if "get_peft_model" in names else "full"
    read_shared(draft)
    targets = draft.fields.get("target_modules", ())
    if not set(targets).isdisjoint(_EMBEDDINGS):  # Source: `get_peft_model`: they are trained in full
        draft.put("target_modules", [name for name in targets if name not in _EMBEDDINGS], "target_modules")
        draft.put("modules_to_save", [name for name in targets if name in _EMBEDDINGS], "target_modules")
    if draft.get("random_state") == draft.fields["seed"]:
        draft.take("random_state")


def _read_trainer(draft: Draft, *, answers_only: bool) -> None:
    """Read what is learned by the name of the trainer, which tokens count, and how long a sequence may be."""
    name = str(draft.get("trainer") or "SFT").removesuffix("Trainer")
    draft.put("objective", _OBJECTIVES.get(name, name), "trainer")
    if draft.fields.get("objective") in ("dpo", "cpo") and draft.get("loss_type") not in (None, "sigmoid"):
        draft.put("objective", draft.get("loss_type"), "loss_type")
    if _OBJECTIVES.get(name) == "sft":
        draft.put("train_on_prompts", not answers_only)
        draft.put("max_length", draft.get("max_seq_length"), "max_seq_length", "max_length")
