"""Fine-tunes a network on your own folder: python fine_tune.py FOLDER RUN PHOTO

The network then segments the photo, from the ONNX file that it is exported to.
"""

import sys
from pathlib import Path

from PIL import Image

import edgeseg
from edgeseg.data import load_dataset
from edgeseg.engine import TrainConfig, evaluate, train


def main(folder: Path, run: Path, photo: Path) -> None:
    """Trains in the folder `run`, and writes the ONNX file and the label map there."""
    train_set = load_dataset("images_masks", folder, "train")
    val_set = load_dataset("images_masks", folder, "val")
    print("classes:", ", ".join(train_set.tasks["segmentation"].classes))

    # All layers but the prediction layer start from weights for street scenes; a
    # warning names the layer that does not. These weights are for non-commercial
    # research only, and so is what is trained from them. To start without them, pass
    # encoder_weights="imagenet" in place of pretrained=True; ImageNet's own terms are
    # for research.
    model = edgeseg.create_model(
        "fpn_aspp_mobilenetv2_tv_edgeailite", pretrained=True, tasks=train_set.tasks
    )

    config = TrainConfig(
        epochs=20, batch_size=4, lr=0.005, img_resize=(360, 480), rand_crop=(320, 416)
    )
    # With resume=True, the next call resumes a run that was stopped.
    train(model, train_set, val_set, config, run, resume=True)
    model = edgeseg.create_model(checkpoint_path=run / "best.safetensors")

    score = evaluate(model, val_set)
    print(f"mIoU {100 * score.miou:.2f} %")

    edgeseg.export_onnx(
        model, run / "model.onnx", output="small_logits", preprocess=True
    )
    labels = edgeseg.OnnxSegmenter(run / "model.onnx").predict(photo)
    Image.fromarray(labels).save(run / f"{photo.stem}_labels.png")


# On macOS and Windows the processes that decode photos import this file, and must not
# train as well.
if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
