"""Folders for TI's devices: the ONNX file as their tools read it, and the configuration in the form of their zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

import edgeseg
from edgeseg.cli import main
from edgeseg.deploy import tidl, verify
from edgeseg.deploy.graph import Output
from edgeseg.deploy.tidl_operators import SUPPORTED
from edgeseg.networks.quantized import quantize_aware
from edgeseg.spec import Quantization, Task

from .conftest import TINY
from .test_export import THREE, _used

# The form of TI's published configurations, from edgeai-modelzoo/models/vision (segmentation: ade20k32, cocoseg21,
# ade20k, ti-robokit; depth_estimation; classification with 8-bit training) and edgeai-benchmark/examples/configs/yaml.
# A set has the allowed values, a type or tuple of types the type, a list one form for all its entries.
NUMBERS, SHAPE, OPTIONAL = [float], [int], type(None)
TENSORS = [{"name": str, "shape": SHAPE, "type": {"tensor(float)", "tensor(uint8)", "tensor(int32)", "tensor(int64)"}}]
IMAGES = {"type": str, "name": str, "path": str, "split": str, "num_classes": int}
RUNTIME = {
    "tensor_bits": {8, 16, 32},
    "accuracy_level": {0, 1, 9},
    "advanced_options:high_resolution_optimization": {0, 1},
    "advanced_options:pre_batchnorm_fold": {0, 1},
    "advanced_options:calibration_frames": int,
    "advanced_options:calibration_iterations": int,
    "advanced_options:quantization_scale_type": {0, 1, 3, 4},
    "advanced_options:activation_clipping": {0, 1},
    "advanced_options:weight_clipping": {0, 1},
    "advanced_options:bias_calibration": {0, 1},
    "advanced_options:output_feature_16bit_names_list": str,
    "advanced_options:params_16bit_names_list": str,
    "advanced_options:add_data_convert_ops": {0, 1, 2, 3},
    "advanced_options:prequantized_model": {0, 1},
}
CONFIG = {
    "task_type": {"segmentation", "depth_estimation"},
    "calibration_dataset": IMAGES,
    "input_dataset": IMAGES,
    "preprocess": {
        "resize": SHAPE,
        "crop": SHAPE,
        "data_layout": {"NCHW", "NHWC"},
        "reverse_channels": bool,
        "backend": {"cv2", "pil"},
        "interpolation": (int, OPTIONAL),
        "resize_with_pad": bool,
        "pad_color": int,
    },
    "session": {
        "session_name": {"onnxrt"},
        "target_device": OPTIONAL,
        "input_optimization": bool,
        "input_data_layout": {"NCHW", "NHWC"},
        "input_mean": NUMBERS,
        "input_scale": NUMBERS,
        "runtime_options": RUNTIME,
        "model_path": str,
        "model_id": str,
        "input_details": TENSORS,
        "output_details": TENSORS,
        "num_inputs": int,
    },
    "postprocess": {"data_layout": {"NCHW", "NHWC"}, "save_output": bool, "with_argmax": bool},
    "model_info": {"metric_reference": {}, "model_shortlist": (int, OPTIONAL), "compact_name": str},
}
DATASET = {
    "info": {"description": str},
    "categories": [{"id": int, "supercategory": str, "name": str}],
    "color_map": [[int]],
}
MAY_LACK = {"num_classes", "with_argmax"}  # for depth


def check(form: Any, content: Any, where: str = "") -> None:
    """Raises an AssertionError unless a content has a form."""
    if isinstance(form, dict):
        assert isinstance(content, dict), where
        assert set(content) <= set(form), where
        assert set(form) - set(content) <= MAY_LACK, where
        for key, value in content.items():
            check(form[key], value, f"{where}/{key}")
    elif isinstance(form, list):
        assert isinstance(content, list), where
        assert content, where
        for value in content:
            check(form[0], value, f"{where}[]")
    elif isinstance(form, set):
        assert content in form, (where, content)
    else:
        assert isinstance(content, form), (where, content)
        assert form is not int or type(content) is int, (where, content)


@pytest.fixture
def model() -> edgeseg.Pixel2Pixel:
    made = edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=4)
    return _used(made)


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "model_config.yaml").read_text(encoding="utf-8"))
    check(CONFIG, content)
    return content


def test_what_is_in_the_folder(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    names = ("road", "no", "1: grass", "Bäume #2")
    model.configure(tasks={"segmentation": Task("segmentation", 4, classes=names)})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    done = edgeseg.export_tidl(model, tmp_path / "ti")
    assert done.path == tmp_path / "ti"
    assert done.sizes == ((1, 3, 64, 96),)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ti"]
    assert sorted(path.name for path in done.path.iterdir()) == sorted(tidl.FILES)
    config = config_of(done.path)
    session = config["session"]
    assert config["preprocess"]["resize"] == config["preprocess"]["crop"] == [64, 96]
    assert session["input_mean"] == [128.0] * 3
    assert session["input_scale"] == [0.015625] * 3  # as in the files of TI's zoo
    assert session["input_details"] == [{"name": "image", "shape": [1, 3, 64, 96], "type": "tensor(float)"}]
    assert session["output_details"] == [{"name": "segmentation", "shape": [1, 1, 16, 24], "type": "tensor(uint8)"}]
    assert config["postprocess"]["with_argmax"] is False
    assert config["input_dataset"]["num_classes"] == 4
    dataset = yaml.safe_load((done.path / "dataset.yaml").read_text(encoding="utf-8"))
    check(DATASET, dataset)
    assert [each["name"] for each in dataset["categories"]] == list(names)
    assert len(dataset["color_map"]) == 4


def test_the_onnx_file(model: edgeseg.Pixel2Pixel, photo: Path, tmp_path: Path) -> None:
    file = onnx.load(edgeseg.export_tidl(model, tmp_path / "ti").path / "model.onnx")
    assert file.ir_version == 8
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [("", 18)]
    kinds = {node.op_type for node in file.graph.node}
    assert kinds <= SUPPORTED
    assert "BatchNormalization" not in kinds
    for value in (*file.graph.input, *file.graph.output):
        assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)
    names = {name for node in file.graph.node for name in node.output}
    first, last = config_of(tmp_path / "ti")["session"]["runtime_options"][
        "advanced_options:output_feature_16bit_names_list"
    ].split(", ")
    assert {first, last} <= names
    [argmax] = [node for node in file.graph.node if node.op_type == "ArgMax"]
    assert argmax.input[0] == last
    labels = edgeseg.load_segmenter(tmp_path / "ti/model.onnx").predict(photo)
    assert (labels == model.predict(photo)).mean() > 0.8  # labels at stride 4
    assert labels.dtype == np.uint8


def test_merged_activations(tmp_path: Path) -> None:
    """TIDL names a layer by its last tensor after merging, such as that of its activation."""
    model = _used(edgeseg.create_model("fpn", encoder="test_resnet", channels=8, num_classes=3))
    file = onnx.load(edgeseg.export_tidl(model, tmp_path / "ti").path / "model.onnx")
    first = config_of(tmp_path / "ti")["session"]["runtime_options"]["advanced_options:output_feature_16bit_names_list"]
    [producer] = [node for node in file.graph.node if node.output[0] == first.split(", ")[0]]
    assert producer.op_type == "Relu"


def test_versions(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    edgeseg.export_tidl(model, tmp_path / "ti", opset=11, ir_version=7, output="small_logits", size=(64, 64))
    file = onnx.load(tmp_path / "ti/model.onnx")
    assert (file.ir_version, file.opset_import[0].version) == (7, 11)
    config = config_of(tmp_path / "ti")
    assert config["postprocess"]["with_argmax"] is True
    assert config["session"]["output_details"][0] == {
        "name": "segmentation", "shape": [1, 4, 16, 16], "type": "tensor(float)",
    }  # fmt: skip
    for versions in ({"opset": 20}, {"ir_version": 9}):
        with pytest.raises(ValueError, match="opset 19 and IR version 8"):
            edgeseg.export_tidl(model, tmp_path / "no", **versions)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="opset is 11 to"):
        edgeseg.export_tidl(model, tmp_path / "no", opset=9)
    assert [path.name for path in tmp_path.iterdir()] == ["ti"]


FAMILIES = ("fpn", "unet", "deeplabv3plus", "bifpn", "fpnsum")


@pytest.mark.parametrize(
    "family", ["unet", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "unet")]
)
def test_families(family: str, tmp_path: Path) -> None:
    model = _used(edgeseg.create_model(family, encoder=TINY, channels=8, num_classes=3))
    output: Output = "labels" if family == "unet" else "small_labels"
    edgeseg.export_tidl(model, tmp_path / "ti", output=output, size=(128, 128))
    config_of(tmp_path / "ti")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "fpn_aspp_mobilenetv2_tv_edgeailite", "unet_aspp_mobilenetv2_tv_edgeailite", "fpn_aspp_regnetx400mf_edgeailite",
        "deeplabv3plus_mobilenetv2_tv_edgeailite", "bifpn_aspp_mobilenetv2_tv_edgeailite", "erfnet", "fcn_resnet50_tv",
        "lraspp_mobilenetv3_large_tv", "deeplab_mobilenetv2", "fpn_aspp_mobilenetv4_conv_small",
    ],
)  # fmt: skip
def test_zoo(name: str, tmp_path: Path) -> None:
    edgeseg.export_tidl(edgeseg.create_model(name, num_classes=5).eval(), tmp_path / "ti", size=(128, 256))
    config_of(tmp_path / "ti")


def test_depth_and_other_colours(tmp_path: Path) -> None:
    model = _used(edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks={"depth": Task("depth", 1)}))
    model.configure(
        preprocess=edgeseg.Preprocess(size=(64, 96), mean=(103.5, 116.3, 123.7), std=(1000000,), channel_order="bgr")
    )
    edgeseg.export_tidl(model, tmp_path / "ti")
    config = config_of(tmp_path / "ti")
    assert config["task_type"] == "depth_estimation"
    assert config["preprocess"]["reverse_channels"] is True
    assert config["session"]["input_mean"] == [103.5, 116.3, 123.7]
    assert config["session"]["input_scale"] == [1e-6] * 3
    assert not (tmp_path / "ti/dataset.yaml").exists()


@pytest.mark.slow
def test_operators_that_ti_cannot_take(tmp_path: Path) -> None:
    model = edgeseg.create_model("espnetv2_s0p5", num_classes=3).eval()
    with pytest.raises(ValueError, match=r"no linear resize with align_corners .*choose another network"):
        edgeseg.export_tidl(model, tmp_path / "ti", size=(64, 96))
    assert not list(tmp_path.iterdir())


def test_what_ti_cannot_take(tmp_path: Path) -> None:
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, tasks={"road": Task("binary", 1)}).eval()
    with pytest.raises(ValueError, match=r"Greater.*--file-output small_logits"):
        edgeseg.export_tidl(model, tmp_path / "ti", size=(64, 96))
    edgeseg.export_tidl(model, tmp_path / "binary", size=(64, 96), output="small_logits")
    config = yaml.safe_load((tmp_path / "binary/model_config.yaml").read_text())
    assert not config["postprocess"]["with_argmax"]  # of a single channel it would be 0 everywhere
    with pytest.raises(ValueError, match="multiples of 32 as the size, such as 64x128"):
        edgeseg.export_tidl(model, tmp_path / "ti", size=(60, 100), output="small_logits")
    model = edgeseg.create_model("fpn", encoder=TINY, channels=8, in_channels=(3, 3), tasks=THREE)
    with pytest.raises(ValueError, match="one image and one task, and this network has 2 inputs and 3 tasks"):
        edgeseg.export_tidl(model, tmp_path / "ti")
    assert [path.name for path in tmp_path.iterdir()] == ["binary"]


def test_a_file_of_its_own_is_not_taken_for_an_earlier_folder(model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    before = edgeseg.export(model, tmp_path / "model.onnx", size=(64, 96)).path.read_bytes()
    with pytest.raises(FileExistsError, match="not an earlier export"):
        edgeseg.export_tidl(model, tmp_path, size=(64, 96))
    assert (tmp_path / "model.onnx").read_bytes() == before


@pytest.mark.parametrize("option", [{"opset": "17"}, {"ir_version": "8"}, {"opset": 17.5}])
def test_versions_are_whole_numbers(option: Any, model: edgeseg.Pixel2Pixel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="is a whole number, got"):
        edgeseg.export(model, tmp_path / "net.onnx", **option)
    with pytest.raises(TypeError, match="is a whole number, got"):
        edgeseg.export_tidl(model, tmp_path / "ti", **option)
    assert not list(tmp_path.iterdir())


def test_what_export_takes(model: edgeseg.Pixel2Pixel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = edgeseg.export(model, tmp_path / "net.onnx", size=(64, 96)).path
    with pytest.raises(ValueError, match="an exported file cannot be exported again, got a OnnxSegmenter"):
        edgeseg.export(edgeseg.load_segmenter(path), tmp_path / "again.onnx")  # type: ignore[arg-type]
    edgeseg.save_checkpoint(model, tmp_path / "net.safetensors")
    command = ["export", "--checkpoint", str(tmp_path / "net.safetensors"), "-o", str(tmp_path / "b.onnx")]
    assert main([*command, "--device", "nonsense"]) == 2
    assert "cannot use device nonsense" in capsys.readouterr().err


def test_folders_that_exist(model: edgeseg.Pixel2Pixel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        edgeseg.export_tidl(model, tmp_path / "none/ti")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is not a folder"):
        edgeseg.export_tidl(model, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/model.onnx").write_bytes(b"of someone else")
    with pytest.raises(FileExistsError, match="not an earlier export"):
        edgeseg.export_tidl(model, tmp_path / "full")
    assert (tmp_path / "full/model.onnx").read_bytes() == b"of someone else"
    (tmp_path / "ti").mkdir()  # an empty one may be filled
    edgeseg.export_tidl(model, tmp_path / "ti")
    edgeseg.export_tidl(model, tmp_path / "ti", size=(32, 32))
    assert config_of(tmp_path / "ti")["preprocess"]["resize"] == [32, 32]
    monkeypatch.setitem(verify.TOLERANCE, "labels", -1.0)
    with pytest.raises(RuntimeError, match="differs from the network"):
        edgeseg.export_tidl(model, tmp_path / "ti")
    assert config_of(tmp_path / "ti")["preprocess"]["resize"] == [32, 32]
    (tmp_path / "ti/notes.txt").touch()
    with pytest.raises(FileExistsError, match="not an earlier export"):
        edgeseg.export_tidl(model, tmp_path / "ti")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "ti"]


@pytest.mark.parametrize(
    ("scheme", "kind"), [("power_of_two", 1), pytest.param("per_channel", 4, marks=pytest.mark.slow)]
)
def test_scales_of_training(model: edgeseg.Pixel2Pixel, scheme: Any, kind: int, tmp_path: Path) -> None:
    quantized = quantize_aware(model, Quantization(scheme=scheme)).train()
    for _ in range(2):
        quantized(torch.randn(2, 3, 64, 96))
    edgeseg.export_tidl(quantized.eval(), tmp_path / "ti")
    options = config_of(tmp_path / "ti")["session"]["runtime_options"]
    assert options["advanced_options:quantization_scale_type"] == kind
    assert options["advanced_options:prequantized_model"] == 1
    assert options["accuracy_level"] == 0
    assert options["advanced_options:output_feature_16bit_names_list"] == ""
    graph = onnx.load(tmp_path / "ti/model.onnx").graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    scales = [constants[node.input[1]] for node in graph.node if "quantizeLinear" in node.op_type.replace("Q", "q")]
    assert scales
    if scheme == "power_of_two":
        weights = [scale for scale in scales if scale.size == 1]
        assert len(weights) == len(scales)
        assert all(np.log2(scale) == np.round(np.log2(scale)) for scale in weights)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = ["--model", "fpn", "--encoder", TINY, "--option", "channels=8"]
    command = ["export", "--target", "tidl", "-o", str(tmp_path / "ti")]
    weights = tmp_path / "weights.safetensors"
    edgeseg.save_checkpoint(edgeseg.create_model("fpn", encoder=TINY, channels=8, num_classes=3), weights)
    assert main([*command, "--checkpoint", str(weights), "--img-resize", "64", "96"]) == 0
    assert "differs from the network by" in capsys.readouterr().out
    assert config_of(tmp_path / "ti")["session"]["output_details"][0]["shape"] == [1, 1, 16, 24]
    assert main(["info", str(tmp_path / "ti/model.onnx")]) == 0
    for wrong in (["--int8"], ["--fp16"], ["--preprocess"], ["--format", "onnx"], ["--fixed", "--fit", "letterbox"]):
        assert main([*command, *network, *wrong]) != 0
        assert "does not apply to --target tidl" in capsys.readouterr().err
