"""Official look-up tables: sums as the reference's, and refusal of everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from material import material

from edgeofa.errors import FileFormatError, MissingMaterial, UsageError
from edgeofa.spaces import Layer, Subnet, load_space
from edgeofa.tables.lookup import Origin, import_lookups, read_lookup, store_lookups
from edgeofa.tables.store import read_table

SPACE = load_space("ofa_mbv3_w12")
ORIGIN = Origin("note10", "0" * 16, "Samsung Note10", "litert", "float32", 1, "TFLite", "unknown")
ENTRY = "Conv-input:160x160x3-output:80x80x24:\n  count: 5\n  mean: 0.5\n  std: 0.1\n"


def test_sums_are_the_references(tmp_path: Path) -> None:
    content = json.loads(material("ofa/note10/note10_lut_acc.json").read_text())
    wanted = [x for x in content["samples"] + content["corners"] if x["spec"]["r"][0] == 176]
    file = material("ofa/note10/176_lookup_table.yaml")
    path, table = store_lookups(
        [file],
        SPACE,
        target="note10",
        device="Samsung Note10",
        backend="litert",
        precision="float32",
        threads=1,
        runtime="TFLite",
        date="unknown",
        folder=tmp_path,
    )
    assert read_table(path) == table
    assert len(wanted) > 50
    for x in wanted:
        spec, stages = x["spec"], [(Layer(3, 1),)]
        for i, depth in enumerate(spec["d"]):
            chosen = range(4 * i, 4 * i + depth)
            stages.append(tuple(Layer(spec["ks"][n], spec["e"][n]) for n in chosen))
        subnet = Subnet(SPACE.name, 176, tuple(stages))
        assert table.sum_ms(SPACE.blocks(subnet)) == pytest.approx(x["lat_ms"], rel=1e-6)
    row = table.row(SPACE.stem_block(176))
    assert row.evidence == "measured"
    assert row.latency_low_ms < row.latency_ms < row.latency_high_ms
    # weights and biases of a 3x3 convolution, 3 to 24 channels, in float32
    assert row.weight_bytes == 4 * (3 * 3 * 3 * 24 + 24)


def test_blocks_that_two_files_share_are_weighted_by_their_runs() -> None:
    files = [material(f"ofa/note10/{r}_lookup_table.yaml") for r in (176, 192)]
    table = import_lookups(files, SPACE, ORIGIN)
    name = (
        "expanded_conv-input:6x6x192-output:6x6x192-expand:576-kernel:3-stride:1-idskip:1-se:1-hs:1"
    )
    one, other = (read_lookup(f)[name] for f in files)
    block = SPACE.layer_block(176, 5, 1, Layer(3, 3))
    assert block == SPACE.layer_block(192, 5, 1, Layer(3, 3))
    mean = (one.count * one.mean_ms + other.count * other.mean_ms) / (one.count + other.count)
    assert table.row(block).latency_ms == pytest.approx(mean, abs=1e-6)
    assert table.row(block).samples == one.count + other.count


@pytest.mark.parametrize(
    "text",
    [
        "",
        ENTRY[:-10],
        ENTRY + ENTRY,
        ENTRY.replace("0.5", ".inf"),
        ENTRY.replace("0.5", "-1"),
        ENTRY.replace("0.5", "0.0"),
        ENTRY.replace("count: 5", "count: 0"),
        ENTRY.replace("mean", "median"),
        ENTRY.replace("  count", " count"),
        "!!python/object/apply:os.system ['true']\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nd: 1\n",
        "\x00" * 50,
        "é: \n",
    ],
)
def test_what_is_not_a_look_up_table_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "160_lookup_table.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(FileFormatError):
        read_lookup(file)


def test_missing_blocks_and_wrong_names_are_named(tmp_path: Path) -> None:
    file = tmp_path / "160_lookup_table.yaml"
    file.write_text(ENTRY)
    assert read_lookup(file)["Conv-input:160x160x3-output:80x80x24"].mean_ms == 0.5
    with pytest.raises(MissingMaterial, match="no entry expanded_conv-input:80x80x24"):
        import_lookups([file], SPACE, ORIGIN)
    with pytest.raises(FileFormatError, match="second file"):
        import_lookups([file, file], SPACE, ORIGIN)
    with pytest.raises(UsageError, match="not a target's name"):
        store_lookups(
            [file],
            SPACE,
            target="../x",
            device="",
            backend="litert",
            precision="float32",
            threads=1,
            runtime="",
            date="",
        )
