"""Dense poses in the picture: which part of the object's surface every pixel of a box shows, and where on it. numpy only."""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEPS = 255
"""(u, v) is kept in steps of 1 / 255."""


@dataclass(frozen=True, slots=True)
class DensePose:
    """A part of the surface and (u, v) for every pixel of a box."""

    left: int
    top: int
    """Pixel of the picture where the grid starts; it may reach out of the picture at the right and bottom."""
    shape: tuple[int, int]
    """Height and width in pixels."""
    packed: bytes
    """Compressed uint8 [3, height, width]: part (0 background), u and v in 1/255. A split's bare grids would fill memory."""

    @classmethod
    def of(cls, left: int, top: int, parts_HW: NDArray[np.integer], uv_2HW: NDArray[np.floating]) -> "DensePose":
        """(u, v) are clipped to 0..1."""
        steps = np.rint(np.clip(uv_2HW, 0, 1) * STEPS).astype(np.uint8)
        grid = np.concatenate([parts_HW[None].astype(np.uint8), steps])
        return cls(left, top, parts_HW.shape, zlib.compress(grid.tobytes(), 1))

    def grids(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Part [height, width] and (u, v) [2, height, width] in 0..1."""
        grid = np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(3, *self.shape)
        return grid[0], grid[1:].astype(np.float32) / np.float32(STEPS)

    def at(self, points_P2: NDArray[np.floating]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Part [P] and (u, v) [P, 2] of the pixels that hold points (x, y); the background outside the grid."""
        parts_HW, uv_2HW = self.grids()
        column, row = (np.floor(points_P2[:, axis]).astype(int) - start for axis, start in ((0, self.left), (1, self.top)))
        inside = (row >= 0) & (row < self.shape[0]) & (column >= 0) & (column < self.shape[1])
        row, column = np.where(inside, row, 0), np.where(inside, column, 0)
        return np.where(inside, parts_HW[row, column], 0).astype(np.uint8), uv_2HW[:, row, column].T


def dense_pose(
    coarse_CMM: NDArray[np.float32],
    fine_CMM: NDArray[np.float32],
    u_CMM: NDArray[np.float32],
    v_CMM: NDArray[np.float32],
    box_4: NDArray[np.floating],
) -> DensePose:
    """One detection's maps at the size of its box (x1, y1, x2, y2) in the picture.

    Corner and sides are cut to whole pixels (at least one), as the reference does. Maps are resized bilinearly; a pixel shows the
    best part where the coarse segmentation's best is not the background, with that part's (u, v).
    """
    x1, y1, x2, y2 = np.asarray(box_4, np.float32).tolist()
    height, width = max(1, int(np.float32(y2) - np.float32(y1))), max(1, int(np.float32(x2) - np.float32(x1)))
    rows, columns = _weights(height, fine_CMM.shape[1]), _weights(width, fine_CMM.shape[2]).T
    object_HW = (rows @ coarse_CMM @ columns).argmax(axis=0) > 0
    parts_HW = np.where(object_HW, (rows @ fine_CMM @ columns).argmax(axis=0), 0)
    uv_2HW = np.zeros((2, height, width), np.float32)
    for part in np.unique(parts_HW[parts_HW > 0]).tolist():
        own = parts_HW == part
        for axis, values in enumerate((u_CMM, v_CMM)):
            uv_2HW[axis][own] = (rows @ values[part] @ columns)[own]
    return DensePose.of(int(x1), int(y1), parts_HW, uv_2HW)


def _weights(pixels: int, cells: int) -> NDArray[np.float32]:
    """Bilinear weights [pixels, cells] of a map's cells, edge cells repeated outwards, as torch's interpolate has them."""
    at = np.maximum((np.arange(pixels, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / pixels) - np.float32(0.5), 0)
    low = np.minimum(at.astype(int), cells - 1)
    share = at - low
    weights = np.zeros((pixels, cells), np.float32)
    weights[np.arange(pixels), low] += 1 - share
    weights[np.arange(pixels), np.minimum(low + 1, cells - 1)] += share
    return weights
