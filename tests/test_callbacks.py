"""Callbacks of a training run: hooks, early stopping, their state, and the trackers of docs/training.md."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgeseg.data.camvid import CamVid
from edgeseg.engine import Callback, EarlyStopping, report, train
from edgeseg.engine.callbacks import Run
from edgeseg.tasks import Metric

from .conftest import ROOT
from .test_runs import SMALL, make, rows

STILL = replace(SMALL, epochs=9, lr=0.0, evaluate_every=1, freeze_bn=True, ema=0.0)  # its score never improves


class Recorder(Callback):
    """Writes down what is called."""

    def __init__(self, stop_at: int = 0) -> None:
        self.calls: list[str] = []
        self.stop_at = stop_at
        self.count = 0

    def on_run_start(self, run: Run) -> None:
        self.calls.append(f"start {run.step}")

    def on_step_end(self, run: Run, losses: Mapping[str, float]) -> None:
        assert losses["loss"] > 0
        self.count += 1
        if run.step == self.stop_at:
            run.stop("enough")

    def on_evaluation(self, run: Run, metrics: Mapping[str, Metric]) -> None:
        self.calls.append(f"evaluation of {', '.join(metrics)}")

    def on_epoch_end(self, run: Run, row: Mapping[str, float]) -> None:
        self.calls.append(f"epoch {run.epoch} {'miou' in row}")

    def on_run_end(self, run: Run, error: BaseException | None) -> None:
        self.calls.append(f"end {type(error).__name__}")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


def test_hooks_and_stop(camvid: Path, tmp_path: Path) -> None:
    """All hooks in their order; a stop within an epoch saves; the resumed run has the callback's state."""
    data, val, config = CamVid(camvid), CamVid(camvid, "val"), replace(SMALL, epochs=2, evaluate_every=2)
    first = Recorder(stop_at=4)
    train(make(), data, val, config, tmp_path, callbacks=[first])
    assert first.calls == ["start 0", "epoch 1 False", "end NoneType"]
    assert (tmp_path / "last.safetensors").is_file()
    second = Recorder()
    train(make(), data, val, config, tmp_path, callbacks=[second], resume=True)
    assert second.calls == ["start 4", "evaluation of segmentation", "epoch 2 True", "end NoneType"]
    assert second.count == 6
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 2]


def test_stopped_and_resumed_is_never_stopped(camvid: Path, tmp_path: Path) -> None:
    data, config = CamVid(camvid), replace(SMALL, epochs=2)
    model = make()
    train(copy.deepcopy(model), data, None, config, tmp_path / "whole")
    train(model, data, None, config, tmp_path / "parts", callbacks=[Recorder(stop_at=2)])
    train(make(), data, None, config, tmp_path / "parts", resume=True)
    names = [tmp_path / run / "last.safetensors" for run in ("whole", "parts")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_an_epoch_whose_callback_fails_is_not_lost(camvid: Path, tmp_path: Path) -> None:
    class Fails(Callback):
        def on_epoch_end(self, run: Run, row: Mapping[str, float]) -> None:
            raise RuntimeError("the tracker is out of reach")

    data, config, model = CamVid(camvid), replace(SMALL, epochs=2), make()
    train(copy.deepcopy(model), data, None, config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="out of reach"):
        train(model, data, None, config, tmp_path / "parts", callbacks=[Fails()])
    train(make(), data, None, config, tmp_path / "parts", resume=True)
    assert [row["epoch"] for row in rows(tmp_path / "parts")] == [1, 2]
    names = [tmp_path / run / "last.safetensors" for run in ("whole", "parts")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_an_epoch_whose_evaluation_fails_is_not_lost(camvid: Path, tmp_path: Path) -> None:
    class Fails(Callback):
        def on_evaluation(self, run: Run, metrics: Mapping[str, Metric]) -> None:
            raise RuntimeError("no place for a picture")

    data, val, config = CamVid(camvid), CamVid(camvid, "val"), replace(SMALL, epochs=2, evaluate_every=1)
    model = make()
    whole = train(copy.deepcopy(model), data, val, config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="no place"):
        train(model, data, val, config, tmp_path / "parts", callbacks=[Fails()])
    parts = train(make(), data, val, config, tmp_path / "parts", resume=True)
    scores = [[(row["epoch"], row["loss"], row["miou"]) for row in rows(tmp_path / run)] for run in ("whole", "parts")]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2
    assert all(torch.equal(value, parts.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_last_evaluation_that_failed_is_made_up_for(camvid: Path, tmp_path: Path) -> None:
    """The last epoch is done, so that the run would end without a score."""
    label = camvid / "valannot/001.png"
    data, val, content = CamVid(camvid), CamVid(camvid, "val"), label.read_bytes()

    class Damages(Callback):
        def on_run_start(self, run: Run) -> None:
            label.write_bytes(content[:50])

    with pytest.raises(OSError, match=r"valannot/001\.png"):
        train(make(), data, val, SMALL, tmp_path, callbacks=[Damages()])
    assert not rows(tmp_path)
    label.write_bytes(content)
    train(make(), data, val, SMALL, tmp_path, resume=True)
    assert [row["epoch"] for row in rows(tmp_path)] == [1]
    assert rows(tmp_path)[0]["miou"] >= 0
    assert (tmp_path / "best.safetensors").is_file()


def test_an_earlier_run_stays_if_a_callback_cannot_start(camvid: Path, tmp_path: Path) -> None:
    """Only callbacks that have started hear of the end."""
    data = CamVid(camvid)
    train(make(), data, None, SMALL, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    class Absent(Callback):
        def on_run_start(self, run: Run) -> None:
            raise ImportError("no tracker here")

        def on_run_end(self, run: Run, error: BaseException | None) -> None:
            raise AssertionError("it never began")

    first = Recorder()
    with pytest.raises(ImportError, match="no tracker here"):
        train(make(), data, None, SMALL, tmp_path, overwrite=True, callbacks=[first, Absent()])
    assert first.calls == ["start 0", "end ImportError"]
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in ("last.safetensors", "run.pt", "metrics.jsonl"))
    with pytest.raises(TypeError, match="callbacks is a list, got a single Recorder"):
        train(make(), data, None, SMALL, tmp_path / "other", callbacks=first)  # type: ignore[arg-type]


def test_early_stopping_of_several_runs(camvid: Path, tmp_path: Path) -> None:
    """One object for all folds of a cross-validation begins anew with each."""
    data, val, stopping = CamVid(camvid), CamVid(camvid, "val"), EarlyStopping(1)
    for fold in ("0", "1"):
        train(make(), data, val, STILL, tmp_path / fold, callbacks=[stopping])
        assert len(rows(tmp_path / fold)) == 2


def test_early_stopping_of_a_run_that_had_none(camvid: Path, tmp_path: Path) -> None:
    """What it has waited for in another run does not count."""
    data, val, stopping = CamVid(camvid), CamVid(camvid, "val"), EarlyStopping(1)
    train(make(), data, val, replace(STILL, epochs=1), tmp_path / "without")
    train(make(), data, val, STILL, tmp_path / "first", callbacks=[stopping])
    train(make(), data, val, STILL, tmp_path / "without", callbacks=[stopping], resume=True)
    assert len(rows(tmp_path / "without")) == 3


def test_every_callback_hears_of_the_end(camvid: Path, tmp_path: Path) -> None:
    class Failing(Callback):
        def on_run_end(self, run: Run, error: BaseException | None) -> None:
            raise OSError("no connection")

    last = Recorder()
    with pytest.raises(OSError, match="no connection"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, callbacks=[Failing(), last])
    assert last.calls[-1] == "end NoneType"


def test_rows_of_epochs_that_run_again(tmp_path: Path) -> None:
    """An epoch whose evaluation failed has no row, so that rows are not counted."""
    run = Run(make(), SMALL, tmp_path, steps=2, step=6)
    whole = "".join(f'{{"epoch": {epoch}}}\n' for epoch in (1, 3, 4))
    (tmp_path / "metrics.jsonl").write_text(whole + '{"epoch": 2, "lo')  # cut off by a power failure
    report.Log().open(run, done=3)
    assert [row["epoch"] for row in rows(tmp_path)] == [1, 3]


def test_early_stopping(camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends the run, says so when the run is resumed, and goes on with more patience."""
    data, val = CamVid(camvid), CamVid(camvid, "val")
    train(make(), data, val, STILL, tmp_path, callbacks=[EarlyStopping(2)])
    assert len(rows(tmp_path)) == 3
    capsys.readouterr()
    train(make(), data, val, STILL, tmp_path, callbacks=[EarlyStopping(2)], resume=True)
    assert "at epoch 3 of 9 (the score has not improved for 2 evaluations), best miou" in capsys.readouterr().out
    train(make(), data, val, STILL, tmp_path, callbacks=[EarlyStopping(4)], resume=True)
    assert len(rows(tmp_path)) == 5


def test_early_stopping_on_other_figures(camvid: Path, tmp_path: Path) -> None:
    """A loss is better if it is lower; a name that does not occur is refused with those that do."""
    run = Run(make(), SMALL, tmp_path, steps=3, validates=False)
    stopping = EarlyStopping(1, "loss")
    stopping.on_run_start(run)
    reasons = []
    for loss in (3.0, 2.0, 2.5):
        stopping.on_epoch_end(run, {"loss": loss})
        reasons.append(run.reason)
    assert reasons == ["", "", "loss has not improved for 1 epochs"]
    with pytest.raises(ValueError, match="patience needs a validation set"):
        EarlyStopping(1).check(run)
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        EarlyStopping(0)
    with pytest.raises(ValueError, match="watches 'mIoU', but the figures of this run are loss, miou"):
        train(make(), CamVid(camvid), CamVid(camvid, "val"), STILL, tmp_path, callbacks=[EarlyStopping(1, "mIoU")])


def test_a_refused_resume_leaves_the_weights(camvid: Path, tmp_path: Path) -> None:
    train(make(), CamVid(camvid), None, SMALL, tmp_path)
    torch.manual_seed(5)
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="figures of this run"):
        train(model, CamVid(camvid), None, SMALL, tmp_path, resume=True, callbacks=[EarlyStopping(3, "typo")])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_state_that_is_no_dictionary_is_refused_at_once(camvid: Path, tmp_path: Path) -> None:
    """Such a run could not be resumed."""

    class Forgets(Callback):
        def state_dict(self) -> dict[str, Any]:
            return None  # type: ignore[return-value]

    with pytest.raises(TypeError, match="the callback Forgets returns a NoneType, not a dict"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, callbacks=[Forgets()])


def test_a_refused_run_removes_no_files(camvid: Path, tmp_path: Path) -> None:
    train(make(), CamVid(camvid), None, SMALL, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    model = make()
    for callback, problem in ((EarlyStopping(3), "patience needs"), (EarlyStopping(3, "miou"), "figures of this run")):
        record = model.config
        with pytest.raises(ValueError, match=problem):
            train(model, CamVid(camvid), None, SMALL, tmp_path, overwrite=True, callbacks=[callback])
        assert model.config == record
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_wrong_callbacks(camvid: Path, tmp_path: Path) -> None:
    class Unsafe(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"path": Path()}

    with pytest.raises(TypeError, match="the callback Unsafe does not return JSON values"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, callbacks=[Unsafe()])
    with pytest.raises(TypeError, match=r"callbacks are objects of subclasses of edgeseg\.engine\.Callback"):
        train(make(), CamVid(camvid), None, SMALL, tmp_path, callbacks=[Recorder])  # type: ignore[list-item]


def test_an_error_ends_the_run(camvid: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(FloatingPointError):
        train(make(), CamVid(camvid), None, replace(SMALL, lr=1e30), tmp_path, callbacks=[recorder])
    assert recorder.calls[-1] == "end FloatingPointError"


def test_something_is_logged_within_an_epoch(
    camvid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "HEARTBEAT", 0.0)
    train(make(), CamVid(camvid), None, SMALL, tmp_path)
    assert re.search(r"^epoch 1/1  step 2/3  loss [\d.]+$", capsys.readouterr().out, re.MULTILINE)


class Tracker(SimpleNamespace):
    """Stands for the modules wandb and mlflow, which are not installed: takes every call, and writes it down."""

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Tracker:
            self.calls.append((name, arguments, options))
            return self

        return call


@pytest.mark.parametrize(("module", "name"), [("wandb", "WandB"), ("mlflow", "MLflow")])
def test_trackers_of_the_documents(
    module: str, name: str, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs/training.md").read_text()
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"class {name}" in code)
    tracker = Tracker(calls=[], id="7", info=SimpleNamespace(run_id="7"))
    monkeypatch.setitem(sys.modules, module, tracker)
    names: dict[str, Any] = {}
    exec(compile(block, "block", "exec"), names)
    callback = names[name]()
    train(make(), CamVid(camvid), CamVid(camvid, "val"), SMALL, tmp_path, callbacks=[callback])
    logged = [call for call in tracker.calls if call[0] in ("log", "log_metrics")]
    assert "miou" in logged[0][1][0]
    assert json.dumps(callback.state_dict()) == '{"id": "7"}'
