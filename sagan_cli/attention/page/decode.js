"use strict";
// Decodes the maps of sagan_cli/attention/page_data.py.

/** Decompress a base64 text. */
async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Decode one map of h x w queries and kh x kw keys. */
async function decoded(text, count, [h, w], [kh, kw]) {
  const bytes = await inflated(text);
  const keys = kh * kw;
  const line = keys + 2;
  const n = h * w;
  if (bytes.length !== n * (line + 2)) throw new Error("a map has the wrong length");
  const body = unpredicted(bytes.subarray(0, n * line), h, w, line);
  const tops = new DataView(bytes.buffer, n * line);
  return {
    /** Return the attention of query i to each key. */
    row(i) {
      const top = Math.max(keys, 2) ** (tops.getUint16(2 * i, true) / 65535 - 1);
      return Float32Array.from(body.subarray(i * line, i * line + keys), (level) => top * (level / count) ** 2);
    },
    entropy: (i) => body[i * line + keys] / 255,
    distance: (i) => (body[i * line + keys + 1] / 255) * Math.SQRT2,
  };
}

/** Add to each residual its prediction from the values above, left and above-left, modulo 256. */
function unpredicted(residuals, h, w, m) {
  const v = new Uint8Array(residuals.length);
  const line = w * m;
  for (let i = 0, at = 0; i < h; i++) {
    for (let j = 0; j < w; j++) {
      for (let k = 0; k < m; k++, at++) {
        let guess = 0;
        if (i && j) {
          const up = v[at - line];
          const left = v[at - m];
          const low = up < left ? up : left;
          const high = up < left ? left : up;
          const plane = up + left - v[at - line - m];
          guess = plane < low ? low : plane > high ? high : plane;
        } else if (j) guess = v[at - m];
        else if (i) guess = v[at - line];
        v[at] = residuals[at] + guess;
      }
    }
  }
  return v;
}
