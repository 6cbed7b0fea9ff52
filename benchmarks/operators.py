"""Measures where onnxruntime spends its time, by operator and by session option: python benchmarks/operators.py

Profiles FPN-MobileNetV2, FPN-RegNetX-800MF and UNet-MobileNetV2 in float32 for any size, in float32 for one size, and
in int8. Writes the tables in docs/benchmarks.md. Needs pip install 'edgeseg[onnx]'.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from measuring import machine, markdown, write_table

import edgeseg
from edgeseg.data import Streets
from edgeseg.deploy.quantize import quantize_onnx
from edgeseg.deploy.timing import alternating
from edgeseg.machine.processor import saturates_in_8_bit

NAMES = (
    "fpn_aspp_mobilenetv2_tv_edgeailite",
    "fpn_aspp_regnetx800mf_edgeailite",
    "unet_aspp_mobilenetv2_tv_edgeailite",
)
SIZE = (384, 768)
RUNS = 30
WAITING = {
    "on (onnxruntime's default)": {},
    "within a run only (OnnxSegmenter's)": {"session.force_spinning_stop": "1"},
    "off": {"session.intra_op.allow_spinning": "0"},
}
SHARE = 0.01  # operators that take a smaller share of the time are summed up


def files(model: edgeseg.Pixel2Pixel, folder: Path) -> dict[str, Path]:
    """Writes the three files of a network."""
    paths = {form: folder / f"{number}.onnx" for number, form in enumerate(("float32", "float32, one size", "int8"))}
    edgeseg.export_onnx(model, paths["float32"], output="small_logits")
    edgeseg.export_onnx(model, paths["float32, one size"], output="small_logits", size=SIZE, dynamic=())
    streets = Streets("train", SIZE, length=4)
    frames = [streets[index][0] for index in range(4)]
    quantize_onnx(model, paths["int8"], frames, size=SIZE, calibration="minmax", reduce_range=saturates_in_8_bit())
    return paths


def noise() -> np.ndarray:
    """Creates an input image."""
    return np.random.default_rng(0).standard_normal((1, 3, *SIZE), dtype=np.float32)


def profile(path: Path, folder: Path) -> dict[str, tuple[int, float]]:
    """Returns the number of nodes and the milliseconds per run of each operator."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = noise()
    for _ in range(RUNS):
        session.run(None, {"image": image})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    count, time = Counter[str](), Counter[str]()
    for event in kernels:
        count[event["args"]["op_name"]] += 1
        time[event["args"]["op_name"]] += event["dur"]
    return {kind: (count[kind] // RUNS, each / RUNS / 1000) for kind, each in time.most_common()}


def times(path: Path, options: Mapping[str, str], threads: int) -> tuple[float, float]:
    """Returns the milliseconds of a run alone, and in turns with a matrix product of torch on the same threads."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    for key, value in options.items():
        settings.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    image = noise()
    matrix = torch.rand(1024, 1024)

    def run() -> object:
        return session.run(None, {"image": image})

    alone = alternating({"": run}, rounds=RUNS)[""]
    beside = alternating({"": run, "product": lambda: matrix @ matrix}, rounds=RUNS)[""]
    return 1000 * median(alone), 1000 * median(beside)


def sessions(path: Path) -> str:
    """Returns a Markdown table of the session options."""
    cores = len(os.sched_getaffinity(0))
    rows = [
        (threads, text, *(f"{milliseconds:.1f}" for milliseconds in times(path, options, threads)))
        for threads in range(1, cores + 1)
        for text, options in WAITING.items()
    ]
    return markdown("threads: | thread spinning | ms alone: | ms in turns with torch:", rows)


def cells(operators: dict[str, tuple[int, float]]) -> tuple[str, str]:
    """Returns the milliseconds of a run, and those of its operators, as text."""
    total = sum(time for _, time in operators.values())
    large = {kind: each for kind, each in operators.items() if each[1] >= SHARE * total}
    parts = [f"{count} {kind} {time:.1f}" for kind, (count, time) in large.items()]
    rest = total - sum(time for _, time in large.values())
    return f"{total:.1f}", f"{', '.join(parts)}, others {rest:.1f}"


def main() -> None:
    """Profiles all files and writes the tables."""
    rows, options = [], ""
    for name in NAMES:
        model = edgeseg.create_model(name, num_classes=19).eval()
        with tempfile.TemporaryDirectory() as folder:
            for form, path in files(model, Path(folder)).items():
                rows.append((f"`{name}`", form, *cells(profile(path, Path(folder)))))
                if (name, form) == (NAMES[0], "int8"):
                    options = sessions(path)
    table = markdown("network | file | ms: | operators: how many, ms", rows)
    write_table("benchmarks.md", "operators", f"{table}\n\n{machine(libraries=('torch', 'onnxruntime'))}.")
    write_table("benchmarks.md", "sessions", options)


if __name__ == "__main__":
    main()
