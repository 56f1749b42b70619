"""What the network is fed, against figures worked out by hand."""

import numpy as np
import pytest

from runtime.network_input import coord_channels, to_input


def test_input_scale() -> None:
    u8 = np.array([0, 64, 128, 170, 255], dtype=np.uint8)
    scaled = to_input(u8)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.array([-1.0, -0.5, 0.0, 0.328125, 0.9921875]))
    assert u8[0] == 0  # the caller's array stays as it was


def test_coord_figures() -> None:
    # extents 100, 64, 8; window starts at 32, 0, 0 and has 16, 64, 8 voxels
    coord = coord_channels((100, 64, 8), (32, 0, 0), (16, 64, 8))
    assert coord.shape == (3, 4, 16, 2)
    assert coord.dtype == np.float32
    np.testing.assert_allclose(coord[0, :, 3, 1], [-0.16, -0.12, -0.08, -0.04], atol=1e-7)
    np.testing.assert_allclose(coord[1, 2, [0, 8, 15], 0], [2 / 64 - 0.5, 34 / 64 - 0.5, 62 / 64 - 0.5], atol=1e-7)
    np.testing.assert_allclose(coord[2, 0, 0], [-0.25, 0.25], atol=1e-7)


def test_a_window_sees_what_the_whole_volume_sees() -> None:
    whole = coord_channels((90, 70, 50), (0, 0, 0), (96, 80, 64))
    window = coord_channels((90, 70, 50), (32, 16, 0), (32, 48, 64))
    np.testing.assert_array_equal(window, whole[:, 8:16, 4:16])


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        coord_channels((10, 10, 10), (0, 0, 0), (16, 6, 16))
