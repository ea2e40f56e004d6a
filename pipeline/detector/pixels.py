"""From the batch's uint8 pixels to the network's input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.detector.compact import channels_last
from pipeline.structures import Images


class Pixels(nn.Module):
    """Normalise, then zero outside each picture's own size, so that padding reads as in a batch of one."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    mean: Tensor
    std: Tensor

    def forward(self, images: Images) -> Tensor:
        """float32 [N, 3, H, W] from uint8 [N, 3, H, W] in the model's channel order."""
        pixels_N3HW = (images.pixels_N3HW.to(self.mean.dtype) - self.mean) / self.std
        _, _, height, width = pixels_N3HW.shape
        rows_H = torch.arange(height, device=pixels_N3HW.device)
        columns_W = torch.arange(width, device=pixels_N3HW.device)
        inside_NHW = (rows_H.view(1, -1, 1) < images.sizes_N2[:, 0].view(-1, 1, 1)) & (
            columns_W.view(1, 1, -1) < images.sizes_N2[:, 1].view(-1, 1, 1)
        )
        return channels_last(torch.where(inside_NHW.unsqueeze(1), pixels_N3HW, torch.zeros_like(pixels_N3HW)))
