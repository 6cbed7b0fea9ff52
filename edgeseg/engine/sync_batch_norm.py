"""Batch norms whose statistics the processes of a run share, for as long as the run lasts."""

from __future__ import annotations

from torch import nn

from edgeseg.networks.pixel2pixel import Pixel2Pixel

TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def share_batch_norms(model: Pixel2Pixel) -> None:
    """Replaces the batch norms of a model by synchronized ones with the same parameters and statistics."""
    from timm.layers.norm_act import convert_sync_batchnorm  # torch's loses the activations of timm's batch norms

    convert_sync_batchnorm(model)


def unshare_batch_norms(model: Pixel2Pixel) -> None:
    """Reverses `share_batch_norms`: only plain batch norms can be folded."""
    for parent in [*model.modules()]:
        for name, each in parent.named_children():
            if isinstance(each, nn.SyncBatchNorm):
                setattr(parent, name, _plain(each))


def _plain(shared: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    sizes = (shared.num_features, shared.eps, shared.momentum, shared.affine, shared.track_running_stats)
    if hasattr(shared, "act"):
        from timm.layers.norm_act import BatchNormAct2d

        plain: nn.BatchNorm2d = BatchNormAct2d(*sizes)  # type: ignore[arg-type]
        plain.act, plain.drop = shared.act, shared.drop
    else:
        plain = nn.BatchNorm2d(*sizes)
    for name in TENSORS:
        setattr(plain, name, getattr(shared, name))
    return plain.train(shared.training)
