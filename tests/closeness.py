"""Comparison of tensors with numbers worked out by hand."""

import torch


def close(value, expected, atol=1e-6):
    torch.testing.assert_close(
        torch.as_tensor(value, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64), atol=atol, rtol=0
    )
