"""Folders for TI's devices: a network as ONNX, and the configurations from which TI's tools compile it.

The form is that of the models in https://github.com/TexasInstruments/edgeai-tensorlab (edgeai-modelzoo and
edgeai-benchmark). TI's tools themselves are not run here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgeseg.deploy.facts import check_free
from edgeseg.deploy.graph import Ends, Graph, Output
from edgeseg.deploy.onnx import export_onnx
from edgeseg.deploy.opset import ONNX_TOOLS, check_versions
from edgeseg.deploy.tidl_operators import NEWEST_IR, NEWEST_OPSET, check_operators, ends, keep_channel_of_labels
from edgeseg.deploy.verify import Exported, verify
from edgeseg.labels import class_names, palette_of
from edgeseg.machine.files import check_folder, replacing_folder
from edgeseg.machine.versions import require_modules
from edgeseg.networks.pixel2pixel import Pixel2Pixel
from edgeseg.tasks import kind_of

MODEL, CONFIG, DATASET = FILES = ("model.onnx", "model_config.yaml", "dataset.yaml")
OPSET, IR_VERSION = 18, 8
# Kind of a task -> TI's name of it, its short form in identifiers, and the class of edgeai-benchmark that reads images.
TASKS = {
    "segmentation": ("segmentation", "ss", "ImageSegmentation"),
    "binary": ("segmentation", "ss", "ImageSegmentation"),
    "depth": ("depth_estimation", "de", "ImagePixel2Pixel"),
}


def export_tidl(
    model: Pixel2Pixel,
    directory: str | os.PathLike[str],
    *,
    size: Sequence[int] | None = None,
    output: Output = "small_labels",
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
) -> Exported:
    """Writes what TI's tools need to compile a network for their devices (TDA4, AM6xA).

    The folder has `model.onnx` of fixed size, `model_config.yaml` (task, preprocessing, quantization) in the form of
    TI's model zoo, and, for a task with classes, `dataset.yaml` with their names and colours. The ONNX file is run
    against the network, and every operator is one that TI's devices accelerate. A network that was trained for 8 bits
    keeps its scales.

    Args:
        model: Exported as it is in evaluation mode; one image, one task.
        directory: The folder. It appears complete or not at all; an earlier export in its place is replaced.
        size: Height and width of the images; by default those that the weights were trained for.
        output: See `edgeseg.export_onnx`; labels are [1, 1, H, W]. TI's zoo has small labels.
        opset: Opset of ONNX, 11 to 19.
        ir_version: IR version of ONNX, at most 8.

    Returns:
        The folder, the size at which the ONNX file was compared, and the differences.

    Raises:
        ImportError: onnxruntime or onnxscript is missing: `pip install 'edgeseg[onnx]'`.
        FileNotFoundError: the folder in which `directory` should be does not exist.
        FileExistsError: `directory` is a file, or a folder with other content than an earlier export.
        ValueError: the network has several inputs or tasks, an operator or a resize that TI's devices do not
            accelerate, or an argument of `export_onnx` does not fit.
        RuntimeError: the outputs of the file differ from those of the network; nothing is kept.

    Example:
        >>> import edgeseg
        >>> model = edgeseg.create_model("fpn", encoder="resnet18", channels=32, num_classes=5)
        >>> done = edgeseg.export_tidl(model, "tidl", size=(64, 96))
        >>> sorted(path.name for path in done.path.iterdir())
        ['dataset.yaml', 'model.onnx', 'model_config.yaml']
    """
    folder = Path(directory)
    check_folder(folder)
    check_free(folder, MODEL, FILES)
    _check_model(model)
    require_modules("ONNX files need", ONNX_TOOLS, "onnx")
    check_versions(opset, ir_version)
    if opset > NEWEST_OPSET or ir_version > NEWEST_IR:
        raise ValueError(
            f"TI's tools read ONNX up to opset {NEWEST_OPSET} and IR version {NEWEST_IR}, got {opset} and {ir_version}"
        )
    with replacing_folder(folder, content=MODEL) as made:
        made.mkdir()
        export_onnx(
            model, made / MODEL, size=size, dynamic=(), output=output, opset=opset, ir_version=ir_version
        )  # fmt: skip
        graph = Graph(model, Ends.of(model, size, (), output, False))
        done = _suit(graph, made / MODEL)
        (made / CONFIG).write_text(_yaml(_config(graph, made / MODEL)), encoding="utf-8")
        [task] = model.tasks.values()
        if kind_of(task).has_classes:
            categories = [{"id": i, "supercategory": each, "name": each} for i, each in enumerate(class_names(task))]
            colors = [list(color) for color in palette_of(task)]
            content = {"info": {"description": model.name}, "categories": categories, "color_map": colors}
            (made / DATASET).write_text(_yaml(content), encoding="utf-8")
        check_free(folder, MODEL, FILES)  # it may have changed while this took its time
    return replace(done, path=folder)


def _check_model(model: Pixel2Pixel) -> None:
    if len(model.inputs) != 1 or len(model.tasks) != 1:
        raise ValueError(
            f"TI's configuration describes one image and one task, and this network has {len(model.inputs)} inputs and "
            f"{len(model.tasks)} tasks; export_onnx writes it without a configuration"
        )
    [task] = model.tasks.values()
    if task.kind not in TASKS:
        raise ValueError(f"TI's configuration has no task like {task.kind}; it has {', '.join(TASKS)}")


def _suit(graph: Graph, path: Path) -> Exported:
    """Checks that TI's devices accelerate an ONNX file, gives labels a channel, and runs the file again."""
    import onnx
    import onnxruntime

    file = onnx.load(path)
    check_operators(file)
    keep_channel_of_labels(file.graph)
    onnx.checker.check_model(file, full_check=True)
    onnx.save(file, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    labels = graph.ends.output.endswith("labels") and all(kind_of(t).has_classes for t in graph.model.tasks.values())

    def run(inputs: Sequence[Tensor]) -> list[np.ndarray]:
        feed = {name: image.numpy() for name, image in zip(graph.model.inputs, inputs, strict=True)}
        outputs = session.run(list(graph.model.tasks), feed)
        return [each[:, 0] if labels and each.ndim == 4 else each for each in outputs]

    return verify(graph, run, path)


def _config(graph: Graph, path: Path) -> dict[str, Any]:
    """The configuration of a model in the form of TI's zoo."""
    import onnx

    model, content = graph.model, onnx.load(path).graph
    preprocess, [task] = model.preprocess, model.tasks.values()
    task_type, short, reader = TASKS[task.kind]
    height, width = graph.ends.size
    [channels] = model.in_channels
    mean, std = (list(map(float, values)) for values in (preprocess.mean, preprocess.std))
    mean, std = (values * channels if len(values) == 1 else values for values in (mean, std))
    images: dict[str, Any] = {"type": reader, "name": "edgeseg", "path": "images", "split": "images/list.txt"}
    images |= {"num_classes": task.class_count} if kind_of(task).has_classes else {}
    several = graph.ends.output.endswith("logits") and task.channels > 1  # a single logit is compared with a threshold
    with_argmax = {"with_argmax": several} if task_type == "segmentation" else {}
    return {
        "task_type": task_type,
        "calibration_dataset": images,
        "input_dataset": dict(images),
        "preprocess": {
            "resize": [height, width],
            "crop": [height, width],
            "data_layout": "NCHW",
            "reverse_channels": preprocess.channel_order == "bgr",
            "backend": "pil",  # with no interpolation named it is bilinear and antialiased, as in training
            "interpolation": None,
            "resize_with_pad": False,
            "pad_color": 0,
        },
        "session": {
            "session_name": "onnxrt",
            "target_device": None,
            "input_optimization": False,
            "input_data_layout": "NCHW",
            "input_mean": mean,
            "input_scale": [1 / value for value in std],
            "runtime_options": _runtime_options(model, content),
            "model_path": path.name,
            "model_id": f"{short}-edgeseg",
            "input_details": [_detail(value) for value in content.input],
            "output_details": [_detail(value) for value in content.output],
            "num_inputs": 1,
        },
        "postprocess": {"data_layout": "NCHW", "save_output": False, **with_argmax},
        "model_info": {
            "metric_reference": {},
            "model_shortlist": None,
            "compact_name": f"{model.name}-{height}x{width}",
        },
    }


def _runtime_options(model: Pixel2Pixel, graph: Any) -> dict[str, Any]:
    """How TI's tools quantize: from images, or with the scales that the file has."""
    scheme = model.config.quantization and model.config.quantization.scheme
    calibrated = scheme is None
    return {
        "tensor_bits": 8,
        "accuracy_level": int(calibrated),
        "advanced_options:high_resolution_optimization": 0,
        "advanced_options:pre_batchnorm_fold": 1,
        "advanced_options:calibration_frames": 25 if calibrated else 1,
        "advanced_options:calibration_iterations": 25 if calibrated else 1,
        # 1: powers of two; 4: a scale per channel, which TDA4VM lacks (edgeai-benchmark then takes 1)
        "advanced_options:quantization_scale_type": 1 if scheme == "power_of_two" else 4,
        "advanced_options:activation_clipping": 1,
        "advanced_options:weight_clipping": 1,
        "advanced_options:bias_calibration": 1,
        "advanced_options:output_feature_16bit_names_list": ", ".join(dict.fromkeys(ends(graph))) if calibrated else "",
        "advanced_options:params_16bit_names_list": "",
        "advanced_options:add_data_convert_ops": 3,
        "advanced_options:prequantized_model": int(not calibrated),
    }


def _detail(value: Any) -> dict[str, Any]:
    """Name, shape and type of an input or output, the type as onnxruntime writes it."""
    import onnx

    tensor = value.type.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    return {"name": value.name, "shape": [dim.dim_value for dim in tensor.shape.dim], "type": f"tensor({name})"}


def _yaml(content: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return text
