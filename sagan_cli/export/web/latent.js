// What is done to latent vectors before they are drawn: walking between two, and keeping them near the middle.

/** The normal distribution function, to about 1e-15 of the value. */
export function ndtr(x) {
  if (x > 0) return 1 - ndtr(-x);
  const t = -x;
  const density = Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  if (t < 3) {
    // Phi(-t) = 1/2 - phi(t) (t + t^3/3 + t^5/(3 5) + ...)
    let term = t;
    let sum = t;
    for (let k = 3; term > 1e-17 * sum; k += 2) {
      term *= (t * t) / k;
      sum += term;
    }
    return 0.5 - density * sum;
  }
  // The upper tail as a continued fraction, phi(t) / (t + 1/(t + 2/(t + ...))), from its far end.
  let tail = t;
  for (let k = 120; k > 0; k--) tail = t + k / tail;
  return density / tail;
}

/** The inverse of `ndtr`, by Halley's method from a point that is never far. */
export function ndtri(p) {
  if (p <= 0) return -Infinity;
  if (p >= 1) return Infinity;
  if (p > 0.5) return -ndtri(1 - p);
  const r = Math.sqrt(-2 * Math.log(p));
  let x = p < 0.1 ? -(r - Math.log(r * Math.sqrt(2 * Math.PI)) / r) : (p - 0.5) * Math.sqrt(2 * Math.PI);
  for (let i = 0; i < 8; i++) {
    const step = ((ndtr(x) - p) / Math.exp((-x * x) / 2)) * Math.sqrt(2 * Math.PI);
    const change = step / (1 + (x * step) / 2);
    x -= change;
    if (Math.abs(change) < 1e-15 * Math.max(1, Math.abs(x))) break;
  }
  return x;
}

/** Squeeze normals onto [-limit, limit] by their distribution function, as `sagan sample --truncation` does. */
export function squeeze(z, limit) {
  if (limit === null) return z;
  const low = ndtr(-limit);
  const high = ndtr(limit);
  return z.map((x) => ndtri(low + ndtr(x) * (high - low)));
}

/** The point at t in [0, 1] on the great arc from a to b, whose length changes evenly as well. */
export function slerp(a, b, t) {
  if (t <= 0) return a;
  if (t >= 1) return b;
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const sine = Math.sin(angle);
  if (!(sine > 1e-6)) return a.map((x, i) => x + t * (b[i] - x));
  const [from, to] = [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
  return a.map((x, i) => from * x + to * b[i]);
}
