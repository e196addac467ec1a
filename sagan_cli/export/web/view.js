// Pixels: a generator's output as a picture, and one row of an attention map laid over it where it belongs.

// From nothing to all of the strongest key: red, green, blue, opacity.
const HEAT = [
  [12, 8, 38, 0.5], [84, 15, 109, 0.56], [187, 55, 84, 0.64], [249, 142, 9, 0.74], [252, 255, 164, 0.86],
];

/** Put picture `index` of an output (batch, C, H, W) in [-1, 1] on a canvas, one pixel each. */
export function paint(canvas, output, index, { height, width, channels }) {
  const plane = height * width;
  const start = index * channels * plane;
  const image = new ImageData(width, height);
  const bytes = image.data; // clamped, and rounded to nearest, as PyTorch's are
  const source = channels < 3 ? [0, 0, 0] : [0, 1, 2];
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) bytes[4 * i + c] = (output[start + source[c] * plane + i] + 1) * 127.5;
    bytes[4 * i + 3] = channels === 4 ? (output[start + 3 * plane + i] + 1) * 127.5 : 255;
  }
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The query position under a point given in fractions of the picture. */
export function queryAt(x, y, [rows, columns]) {
  const place = (at, count) => Math.min(count - 1, Math.max(0, Math.floor(at * count)));
  return place(y, rows) * columns + place(x, columns);
}

/** Row `query` of a map (1, N, M). */
export function rowOf(map, query, { query_grid: [rows, columns] }) {
  const keys = map.length / (rows * columns);
  return map.subarray(query * keys, (query + 1) * keys);
}

/** Draw where `query` looks. Keys tile the same picture as queries do, in coarser cells where they are pooled. */
export function look(canvas, row, query, layer, smooth) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  if (row === null) return;
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(heat(row, layer.key_grid), 0, 0, width, height);
  const [rows, columns] = layer.query_grid;
  const cell = [width / columns, height / rows];
  const corner = [(query % columns) * cell[0], Math.floor(query / columns) * cell[1]];
  for (const [colour, line] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * scale;
    context.strokeRect(...corner, ...cell);
  }
}

function heat(row, [rows, columns]) {
  const canvas = new OffscreenCanvas(columns, rows);
  const image = new ImageData(columns, rows);
  const strongest = row.reduce((a, b) => Math.max(a, b), 0) || 1;
  row.forEach((weight, i) => {
    const at = (weight / strongest) * (HEAT.length - 1);
    const below = Math.min(HEAT.length - 2, Math.floor(at));
    HEAT[below].forEach((from, c) => {
      const value = from + (at - below) * (HEAT[below + 1][c] - from);
      image.data[4 * i + c] = c === 3 ? value * 255 : value;
    });
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
