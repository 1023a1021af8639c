"""Local features of 3x3 neighbourhoods."""

import torch

from station.learn.features.local import AuthorsPool, AveragePool


def test_average_at_the_border_is_over_what_there_is() -> None:
    level = torch.arange(12.0).reshape(1, 1, 3, 4)
    pooled = AveragePool(1)(level)
    assert pooled.shape == level.shape
    assert pooled[0, 0, 0, 0] == (0 + 1 + 4 + 5) / 4
    assert pooled[0, 0, 1, 1] == level[0, 0, :, :3].mean()


def test_authors_features_of_a_wide_resnet_have_the_known_structure() -> None:
    fine, coarse = AuthorsPool(512, 768), AuthorsPool(1024, 768)
    assert [fine.conv.groups, coarse.conv.groups] == [256, 256]
    assert set((fine.conv.weight != 0).flatten(1).sum(1).tolist()) == {6}
    assert set((coarse.conv.weight != 0).flatten(1).sum(1).tolist()) == {12}
    for pool in (fine, coarse):
        assert torch.allclose(pool.conv.weight.flatten(1).sum(1), torch.ones(768))


def test_first_authors_feature_is_the_mean_of_the_first_values_of_the_neighbourhood() -> None:
    level = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    pooled = AuthorsPool(4, 6)(level)
    # 36 values to 12 to 6: the first feature averages the upper two rows of the first channel.
    assert torch.allclose(pooled[0, 0, 2, 2], level[0, 0, 1:3, 1:4].mean(), atol=1e-6)
