"""What each layer holds at the peaks of phases, in the terminal, on a page and for programs."""

import io
from dataclasses import replace

from memory_harness.configs.units import GIB, MIB
from memory_harness.harness.log.peaks import MAX_LAYERS, OTHER_LAYERS, PeakSum
from memory_harness.harness.log.records import PeakRecord, Phase
from memory_harness.reports.html import html_text
from memory_harness.reports.json import to_json
from memory_harness.reports.layers import AlikeLayers, alike
from memory_harness.reports.summary import result_of_log
from memory_harness.reports.terminal import make_console, print_report
from tests.reports.results import FITS, with_peaks


def with_layers():
    """Return a log that tells of what passes made in layers: one is recomputed, the output layer makes logits."""
    forward = {f"layers.{number}": {"weights": 100 * MIB, "activations": 32 * MIB} for number in range(11)}
    backward = {**forward, "layers.10": {"weights": 100 * MIB, "activations": 96 * MIB}}
    head = {"lm_head": {"weights": GIB, "logits": 2 * GIB}}
    kinds = {"weights": 3 * GIB, "activations": GIB, "logits": 3 * GIB}
    peaks = [
        PeakRecord(Phase.FORWARD, 1, 7 * GIB, 8 * GIB, kinds, {**head, **forward}, {}),
        PeakRecord(Phase.BACKWARD, 1, 7 * GIB, 8 * GIB, kinds, {**head, **backward}, {}),
    ]
    return replace(FITS, peaks_seen=peaks)


def shown(log):
    out = io.StringIO()
    print_report(result_of_log(log), make_console(out))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_layers_that_hold_the_same_are_one_row():
    rows = shown(with_layers())
    assert "By layer, as configured activations and logits of each at the peaks, in MiB" in rows
    assert "layers.0–9, each 32.00 32.00" in rows
    assert "layers.10 32.00 96.00" in rows
    assert "lm_head 2048.00 2048.00" in rows
    assert rows.index("layers.10 32.00 96.00") < rows.index("lm_head 2048.00 2048.00")


def test_the_rows_add_up_to_what_passes_made():
    rows = shown(with_layers())
    # 4 GiB less the output layer's 2 GiB and eleven times 32 MiB
    assert "outside of layers 1696.00 1632.00" in rows
    assert "together 4096.00 4096.00" in rows


def test_only_layers_in_a_row_are_alike():
    layers = {"layers.0": 1, "layers.1": 1, "layers.3": 1, "blocks.4": 1, "norm": 1, "layers.10": 2, "layers.9": 2}
    assert alike(layers) == [
        AlikeLayers("blocks.4", "blocks.4", 1, 1),
        AlikeLayers("layers.0", "layers.1", 2, 1),
        AlikeLayers("layers.3", "layers.3", 1, 1),
        AlikeLayers("layers.9", "layers.10", 2, 2),
        AlikeLayers("norm", "norm", 1, 1),
    ]


def test_a_page_shows_each_layer_of_each_phase():
    page = html_text(result_of_log(with_layers()))
    assert 'id="layers"' in page
    assert page.count(">layers.0–10, each<") == 1
    assert page.count(">layers.10<") == 2  # once with what is alike in all phases, as in a terminal
    assert page.count("At the peak of BACKWARD, as configured, in MiB") == 1
    assert page.count(">outside of layers<") == 3  # and among those that hold the same, as in a terminal


def test_a_log_that_names_weights_alone_claims_nothing_of_activations():
    """As those of earlier releases, and of models that are compiled as a whole."""
    page = html_text(result_of_log(with_peaks()))
    assert "as far as tensors have names" in page
    assert "outside of layers" not in page
    assert not any("By layer" in row for row in shown(with_peaks()))


def test_programs_get_the_same_with_layers_that_are_alike_together():
    memory = to_json(result_of_log(with_layers()))["as_configured"]["memory"]
    assert list(memory) == ["FORWARD", "BACKWARD"]
    backward = memory["BACKWARD"]
    assert backward["kinds"]["activations"] == GIB
    each = {"weights": 100 * MIB, "activations": 32 * MIB}
    assert backward["layers"][0] == {"first": "layers.0", "last": "layers.9", "count": 10, "each": each}
    assert sum(group["count"] for group in backward["layers"]) == 12


def test_very_many_layers_are_told_as_one_beyond_a_number():
    found = PeakSum()
    for number in range(MAX_LAYERS + 10):
        found.add("activations", 512, layer=f"layers.{number}")
    layers = found.record(Phase.FORWARD, 1, 512 * (MAX_LAYERS + 10), 2**20).layers
    assert len(layers) == MAX_LAYERS + 1
    assert layers[OTHER_LAYERS] == {"activations": 10 * 512}
