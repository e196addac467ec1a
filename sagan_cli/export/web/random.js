// Random numbers as `sagan sample` draws them: seed s gives the same latent vector and class here and in PyTorch.
//
// seed s -> 64-bit BLAKE2b of "s/sample/0" -> Mersenne Twister -> normals by Box-Muller -> class by remainder.

const MASK = (1n << 64n) - 1n;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
  [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
  [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
  [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
  [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
  [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];
// The four columns, then the four diagonals, of the 4 x 4 working matrix.
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
];

const rotate = (x, by) => ((x >> by) | (x << (64n - by))) & MASK;

/** BLAKE2b (RFC 7693) of at most 128 ASCII characters, 8 bytes long, read as a little-endian integer. */
export function blake2b64(text) {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length > 128) throw new RangeError("blake2b64 takes one block");
  const block = new Uint8Array(128);
  block.set(bytes);
  const view = new DataView(block.buffer);
  const m = Array.from({ length: 16 }, (_, i) => view.getBigUint64(8 * i, true));
  const first = IV[0] ^ 0x01010008n; // parameters: digest of 8 bytes, no key, sequential mode
  const v = [first, ...IV.slice(1), ...IV];
  v[12] ^= BigInt(bytes.length);
  v[14] ^= MASK; // the last block
  for (let round = 0; round < 12; round++) {
    const order = SIGMA[round % 10];
    QUARTERS.forEach(([a, b, c, d], i) => {
      v[a] = (v[a] + v[b] + m[order[2 * i]]) & MASK;
      v[d] = rotate(v[d] ^ v[a], 32n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = rotate(v[b] ^ v[c], 24n);
      v[a] = (v[a] + v[b] + m[order[2 * i + 1]]) & MASK;
      v[d] = rotate(v[d] ^ v[a], 16n);
      v[c] = (v[c] + v[d]) & MASK;
      v[b] = rotate(v[b] ^ v[c], 63n);
    });
  }
  return first ^ v[0] ^ v[8];
}

/** MT19937 with PyTorch's seeding: of a 64-bit seed, the low half counts. */
export class Twister {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = Number(seed & 0xffffffffn);
    for (let i = 1; i < 624; i++) {
      const last = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
    this.index = 624;
  }

  /** A uniform 32-bit integer. */
  next() {
    if (this.index === 624) this.#turn();
    let y = this.state[this.index++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #turn() {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.index = 0;
  }

  /** A single-precision uniform in [0, 1). */
  float() {
    return (this.next() & 0xffffff) / 2 ** 24;
  }

  /** A double-precision uniform in [0, 1): 53 of the bits of two integers, the high one first. */
  double() {
    const high = this.next() & 0x1fffff;
    return (high * 2 ** 32 + this.next()) / 2 ** 53;
  }
}

/** `torch.randn(count)` on a CPU, to single precision. */
export function randn(rng, count) {
  return count < 16 ? few(rng, count) : many(rng, count);
}

// Short vectors: double precision, both halves of each Box-Muller pair in turn.
function few(rng, count) {
  const z = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const angle = 2 * Math.PI * rng.double();
    const radius = Math.sqrt(-2 * Math.log1p(-rng.double()));
    z[i] = radius * Math.cos(angle);
    if (i + 1 < count) z[i + 1] = radius * Math.sin(angle);
  }
  return z;
}

// Long vectors: uniforms first, then blocks of 16 in which place j pairs with j + 8; what remains past the last whole
// block is covered by a block of fresh uniforms that ends where the vector ends.
function many(rng, count) {
  const z = new Float32Array(count);
  for (let i = 0; i < count; i++) z[i] = rng.float();
  for (let start = 0; start + 16 <= count; start += 16) pair(z, start);
  if (count % 16) {
    for (let i = count - 16; i < count; i++) z[i] = rng.float();
    pair(z, count - 16);
  }
  return z;
}

function pair(z, start) {
  for (let j = start; j < start + 8; j++) {
    const radius = Math.sqrt(-2 * Math.log(1 - z[j]));
    const angle = 2 * Math.PI * z[j + 8];
    z[j] = radius * Math.cos(angle);
    z[j + 8] = radius * Math.sin(angle);
  }
}

/** The latent vector and the class of a seed (a string of digits); the class is null for a model without classes. */
export function drawn(seed, latent, numClasses) {
  const rng = new Twister(blake2b64(`${seed}/sample/0`) >> 1n);
  const z = randn(rng, latent);
  return { z, label: numClasses ? rng.next() % numClasses : null };
}
