"""Plain float64 NumPy re-statements of the mathematics, written from the papers."""

from __future__ import annotations

import numpy as np


def conv2d(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """(B, I, H, W), (O, I, k, k), zero padding k // 2."""
    n, _, h, wd = x.shape
    k = w.shape[-1]
    p = k // 2
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    out = np.zeros((n, w.shape[0], h, wd))
    for dy in range(k):
        for dx in range(k):
            out += np.einsum("nihw,oi->nohw", padded[:, :, dy : dy + h, dx : dx + wd], w[:, :, dy, dx])
    return out if b is None else out + b[None, :, None, None]


def nearest2x(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, axis=2).repeat(2, axis=3)


def avgpool2x2(x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))


def maxpool2x2(x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def softmax_rows(s: np.ndarray) -> np.ndarray:
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_block(
    x: np.ndarray, wq: np.ndarray, wk: np.ndarray, wv: np.ndarray, wo: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """The released SAGAN block on already normalised 1x1 weights (O, I): output and maps (B, N, M)."""
    n, c, h, w = x.shape
    project = lambda weight: np.einsum("nihw,oi->nohw", x, weight)  # noqa: E731
    q = project(wq).reshape(n, -1, h * w)
    k = maxpool2x2(project(wk)).reshape(n, -1, h * w // 4)
    v = maxpool2x2(project(wv)).reshape(n, -1, h * w // 4)
    beta = softmax_rows(np.einsum("ndi,ndj->nij", q, k))
    o = np.einsum("nij,nej->nei", beta, v)
    o = np.einsum("nei,oe->noi", o, wo).reshape(n, c, h, w)
    return x + gamma * o, beta


def attend_gradients(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, grad: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d<grad, softmax(q k^T) v> by q, k and v, by the softmax's Jacobian: all (B, positions, width)."""
    beta = softmax_rows(q @ k.transpose(0, 2, 1))
    dv = beta.transpose(0, 2, 1) @ grad
    dbeta = grad @ v.transpose(0, 2, 1)
    ds = beta * (dbeta - (beta * dbeta).sum(axis=-1, keepdims=True))
    return ds @ k, ds.transpose(0, 2, 1) @ q, dv


def batch_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Training-mode batch norm, gain and bias (B, C) per picture."""
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    var = x.var(axis=(0, 2, 3), keepdims=True)
    return gain[:, :, None, None] * (x - mean) / np.sqrt(var + eps) + bias[:, :, None, None]


def spectral_norm(w: np.ndarray) -> float:
    """The largest singular value of (O, everything else)."""
    return float(np.linalg.svd(w.reshape(w.shape[0], -1), compute_uv=False)[0])


def hinge_d(real: np.ndarray, fake: np.ndarray) -> float:
    return float(np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean())
