"""Losses of dense pose from annotated points (Güler et al. 2018), with learnt confidence of (u, v) (Neverova et al. 2019).

Everything is padded: points that do not count give neither loss nor gradient, and nothing waits for the device.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.detector.densepose_head import DenseMaps
from pipeline.structures import DensePoints


@dataclass(frozen=True, slots=True)
class SampledPoints:
    """Annotated points of M regions' truths, and where the regions' maps are read for them."""

    cells_M4P: Tensor
    """int64 flat cells of the four neighbours."""
    weights_M4P: Tensor
    parts_MP: Tensor
    """int64; -1 in padding."""
    uv_MP2: Tensor
    inside_MP: Tensor
    """bool: a real point inside the region."""

    @property
    def surface_MP(self) -> Tensor:
        """bool: inside, and on the object's surface."""
        return self.inside_MP & (self.parts_MP > 0)

    def own(self, values_MCHW: Tensor) -> Tensor:
        """[M, P]: the map of each point's own part at the point; 0 where it is not on the surface."""
        cells = values_MCHW.shape[2] * values_MCHW.shape[3]
        place_M4P = self.parts_MP.clamp(min=0).unsqueeze(1) * cells + self.cells_M4P
        near_M4P = values_MCHW.flatten(1).gather(1, place_M4P.flatten(1)).view_as(place_M4P)
        value_MP = (near_M4P * self.weights_M4P).sum(dim=1)
        return torch.where(self.surface_MP, value_MP, torch.zeros_like(value_MP))

    def all(self, values_MCHW: Tensor) -> Tensor:
        """[M, C, P]: every map at the points."""
        channels = values_MCHW.shape[1]
        place_MCX = self.cells_M4P.flatten(1).unsqueeze(1).expand(-1, channels, -1)
        near_MC4P = values_MCHW.flatten(2).gather(2, place_MCX).unflatten(2, self.cells_M4P.shape[1:])
        return (near_MC4P * self.weights_M4P.unsqueeze(1)).sum(dim=2)


def sample_points(
    points: DensePoints, row_M: Tensor, truths_M4: Tensor, boxes_M4: Tensor, valid_M: Tensor, size: int
) -> SampledPoints:
    """Where the points of truth `row[m]` (box `truths[m]`) lie on the `size` x `size` maps of region `boxes[m]`.

    Cell k starts at coordinate k: the reference reads the maps without the half-cell shift.
    """
    points_MP2, parts_MP = points.points_TP2[row_M.clamp(min=0)], points.parts_TP[row_M.clamp(min=0)]
    inside_MP = valid_M.unsqueeze(1) & (row_M >= 0).unsqueeze(1) & (parts_MP >= 0)
    low, high, share = [], [], []
    for axis in (0, 1):
        start_M1, side_M1 = truths_M4[:, axis, None], truths_M4[:, axis + 2, None] - truths_M4[:, axis, None]
        own_M1, own_side_M1 = boxes_M4[:, axis, None], boxes_M4[:, axis + 2, None] - boxes_M4[:, axis, None]
        from_box_MP = start_M1 + points_MP2[..., axis] * side_M1 / DensePoints.FRAME - own_M1
        inside_MP = inside_MP & (from_box_MP >= 0) & (from_box_MP < own_side_M1)
        at_MP = torch.where(inside_MP, from_box_MP * size / own_side_M1, torch.zeros_like(from_box_MP))
        low.append(at_MP.floor().clamp(0, size - 1))
        high.append((low[-1] + 1).clamp(max=size - 1))
        share.append(torch.minimum(at_MP, high[-1]) - low[-1])
    (left, top), (right, bottom), (right_share, lower_share) = low, high, share
    left_share, upper_share = 1 - right_share, 1 - lower_share
    cells = [top * size + left, top * size + right, bottom * size + left, bottom * size + right]
    weights = [upper_share * left_share, upper_share * right_share, lower_share * left_share, lower_share * right_share]
    return SampledPoints(
        cells_M4P=torch.stack(cells, dim=1).to(torch.int64),
        weights_M4P=torch.stack(weights, dim=1),
        parts_MP=parts_MP,
        uv_MP2=points.uv_TP2[row_M.clamp(min=0)],
        inside_MP=inside_MP,
    )


def uv_losses(
    maps: DenseMaps, points: SampledPoints, kind: Literal["iid_iso", "indep_aniso"] | None, least: float
) -> dict[str, Tensor]:
    """Sums over the points on the surface: smooth L1 of u and of v, or the negative log likelihood of both together."""
    u_MP, v_MP = points.own(maps.u), points.own(maps.v)
    delta_u_MP, delta_v_MP = (
        torch.where(points.surface_MP, value - points.uv_MP2[..., axis], torch.zeros_like(value))
        for axis, value in enumerate((u_MP, v_MP))
    )
    if kind is None:
        zero = torch.zeros_like(delta_u_MP)
        u, v = (functional.smooth_l1_loss(delta, zero, reduction="sum") for delta in (delta_u_MP, delta_v_MP))
        return {"loss_densepose_U": u, "loss_densepose_V": v}
    assert maps.sigma is not None
    variance_MP = functional.softplus(points.own(maps.sigma)) + least
    square_MP = delta_u_MP**2 + delta_v_MP**2
    if kind == "iid_iso":
        loss_MP = math.log(2 * math.pi) + 2 * variance_MP.log() + square_MP / variance_MP
    else:
        assert maps.kappa_u is not None and maps.kappa_v is not None
        kappa_u_MP, kappa_v_MP = points.own(maps.kappa_u), points.own(maps.kappa_v)
        determinant_MP = variance_MP * (variance_MP + kappa_u_MP**2 + kappa_v_MP**2)
        along_MP = (delta_u_MP * kappa_u_MP + delta_v_MP * kappa_v_MP) ** 2
        loss_MP = math.log(2 * math.pi) + determinant_MP.log() + square_MP / variance_MP - along_MP / determinant_MP
    return {"loss_densepose_UV": 0.5 * torch.where(points.surface_MP, loss_MP, torch.zeros_like(loss_MP)).sum()}


def part_loss(fine_MCHW: Tensor, points: SampledPoints) -> Tensor:
    """Sum of cross-entropies of the part at every point inside its region, background points included."""
    target_MP = points.parts_MP.masked_fill(~points.inside_MP, 0)
    loss_MP = functional.cross_entropy(points.all(fine_MCHW), target_MP, reduction="none")
    return torch.where(points.inside_MP, loss_MP, torch.zeros_like(loss_MP)).sum()


def coarse_targets(points: DensePoints, row_M: Tensor, truths_M4: Tensor, boxes_M4: Tensor, size: int) -> Tensor:
    """Coarse parts int64 [M, size, size] in the regions' frames: nearest, 0 outside the truth's box.

    A region's cell stands for its upper left corner; the corners of the truth's grid are the centres of its corner cells.
    """
    side_M2, own_side_M2 = truths_M4[:, 2:] - truths_M4[:, :2], boxes_M4[:, 2:] - boxes_M4[:, :2]
    side_M2 = torch.where(side_M2 > 0, side_M2, torch.ones_like(side_M2))
    first_M2 = 2 * (boxes_M4[:, :2] - truths_M4[:, :2]) / side_M2 - 1
    last_M2 = 2 * (boxes_M4[:, :2] + own_side_M2 - truths_M4[:, :2]) / side_M2 - 1
    step_S = torch.arange(size, device=boxes_M4.device, dtype=boxes_M4.dtype) / size
    x_MS, y_MS = (step_S * (last_M2 - first_M2)[:, axis, None] + first_M2[:, axis, None] for axis in (0, 1))
    grid_MSS2 = torch.stack([x_MS.unsqueeze(1).expand(-1, size, -1), y_MS.unsqueeze(2).expand(-1, -1, size)], dim=-1)
    coarse_MSS = points.coarse_TSS[row_M.clamp(min=0)].to(grid_MSS2.dtype)
    sampled = functional.grid_sample(coarse_MSS.unsqueeze(1), grid_MSS2, mode="nearest", padding_mode="zeros", align_corners=True)
    return sampled.squeeze(1).to(torch.int64)


def coarse_loss(coarse_MCHW: Tensor, target_MHW: Tensor, valid_M: Tensor) -> Tensor:
    """Sum over the valid regions of the mean cross-entropy of their cells."""
    loss_MHW = functional.cross_entropy(coarse_MCHW, target_MHW, reduction="none")
    loss_M = loss_MHW.mean(dim=(1, 2))
    return torch.where(valid_M, loss_M, torch.zeros_like(loss_M)).sum()
