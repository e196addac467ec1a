// Colours and canvases; independent of the state of the page.

/**
 * Return a canvas of a row's values in the colours of a scale, from `low` to `top`.
 *
 * `fine` is the number of interpolated pixels per cell side, `veil` the opacity at `low`; `top` is opaque.
 */
function tinted(scale, row, [h, w], [low, top], { fine = 1, veil = 1 } = {}) {
  const range = Math.max(top - low, 1e-12);
  const canvas = document.createElement("canvas");
  canvas.width = w * fine;
  canvas.height = h * fine;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let y = 0, at = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++, at += 4) {
      const value = fine === 1 ? row[y * w + x] : between(row, h, w, (y + 0.5) / fine - 0.5, (x + 0.5) / fine - 0.5);
      const share = Math.min(Math.max((value - low) / range, 0), 1);
      const colour = 3 * Math.round(255 * share);
      image.data[at] = scale[colour];
      image.data[at + 1] = scale[colour + 1];
      image.data[at + 2] = scale[colour + 2];
      image.data[at + 3] = Math.round(255 * (veil + (1 - veil) * Math.sqrt(share)));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Interpolate between cell centres by a smoothstep, as attention/cells.py does. */
function between(row, h, w, y, x) {
  y = Math.min(Math.max(y, 0), h - 1);
  x = Math.min(Math.max(x, 0), w - 1);
  const i = Math.min(Math.floor(y), Math.max(h - 2, 0));
  const j = Math.min(Math.floor(x), Math.max(w - 2, 0));
  const below = Math.min(i + 1, h - 1);
  const right = Math.min(j + 1, w - 1);
  const [down, across] = [y - i, x - j].map((share) => share * share * (3 - 2 * share));
  const upper = row[i * w + j] * (1 - across) + row[i * w + right] * across;
  const lower = row[below * w + j] * (1 - across) + row[below * w + right] * across;
  return upper * (1 - down) + lower * down;
}

/** Resize a canvas to its box, clear it and return its context in CSS pixels. */
function fresh(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
  return { context, width, height };
}

/** Return the values of the first and last colour: 0, or with contrast the minimum, and the maximum. */
function ends(row, contrast) {
  return [contrast ? Math.min(...row) : 0, Math.max(...row)];
}

/** Opacity of the overlay where attention is least, so that it is visible on light and on dark images. */
const VEIL = 0.6;

/** Draw a row over the whole box, as cells or interpolated between their centres. */
function lay({ context, width, height }, scale, row, grid, { opacity = 1, smooth = false, contrast = false, veil = VEIL }) {
  const fine = smooth ? Math.max(1, Math.round(160 / Math.max(...grid))) : 1;
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(tinted(scale, row, grid, ends(row, contrast), { fine, veil }), 0, 0, width, height);
  context.globalAlpha = 1;
}

/** Outline cell (i, j) of a grid in white and black, which is visible on any image. */
function outline({ context, width, height }, [i, j], [h, w]) {
  const box = [(j * width) / w, (i * height) / h, width / w, height / h];
  for (const [colour, line] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(...box);
  }
}

/** Draw a dot, moved to be completely inside the box, with its number if it is large enough. */
function dot({ context, width, height }, position, name, [colour, ink], radius) {
  const [y, x] = [height, width].map((side, k) => Math.min(side - radius - 1, Math.max(radius + 1, position[k] * side)));
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.stroke();
  if (radius < 7) return;
  context.fillStyle = ink;
  context.font = `600 ${radius * 1.3}px sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(name, x, y + radius * 0.08);
}
