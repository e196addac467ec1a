// Where the picture's attention looks: follows the pointer, a click, a finger or the arrow keys over the picture.

import { look, queryAt, rowOf } from "./view.js";

export class Attention {
  layer = null; // one of model.json's, or null for a generator that shows none
  #hover = null; // the query position under the pointer
  #pinned = null; // the one that is held
  #frame;
  #overlay;
  #note;
  #changed;

  /** `changed()` is told when another position is looked from. */
  constructor(frame, overlay, note, changed) {
    [this.#frame, this.#overlay, this.#note, this.#changed] = [frame, overlay, note, changed];
  }

  /** The query position to be shown, or null. */
  get query() {
    return this.#hover ?? this.#pinned;
  }

  /** Numbers in the layer's map of one picture. */
  get size() {
    const { query_grid: q, key_grid: k } = this.layer;
    return q[0] * q[1] * k[0] * k[1];
  }

  choose(layer) {
    if (this.layer === null) this.#listen();
    this.layer = layer;
    this.#hover = this.#pinned = null;
  }

  /** Show the row of `map` (1, N, M) that belongs to the present position; nothing where either is missing. */
  show(map, smooth) {
    if (this.layer === null) return;
    const at = this.query;
    if (at === null || map === null) {
      look(this.#overlay, null);
      delete this.#overlay.dataset.query;
      this.#note.textContent = "Point at the picture to see where its attention looks; click or tap to hold it.";
      return;
    }
    const row = rowOf(map, at, this.layer);
    look(this.#overlay, row, at, this.layer, smooth);
    this.#overlay.dataset.query = at;
    const [rows, columns] = this.layer.query_grid;
    const percent = (share) => `${Number((100 * share).toPrecision(2))} %`;
    this.#note.textContent =
      `Row ${Math.floor(at / columns) + 1}, column ${(at % columns) + 1} of ${rows} × ${columns} looks most ` +
      `at one of ${row.length} places, by ${percent(Math.max(...row))}; evenly it would be ${percent(1 / row.length)}.`;
  }

  #listen() {
    const on = (event, act) => this.#frame.addEventListener(event, act);
    on("pointermove", (event) => {
      if (event.pointerType === "touch") this.#pinned = this.#under(event);
      else this.#hover = this.#under(event);
      this.#changed();
    });
    on("pointerleave", () => {
      this.#hover = null;
      this.#changed();
    });
    on("click", (event) => {
      const at = this.#under(event);
      this.#pinned = this.#pinned === at ? null : at;
      this.#changed();
    });
    on("keydown", (event) => this.#key(event));
  }

  #under(event) {
    const box = this.#frame.getBoundingClientRect();
    const place = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return queryAt(...place, this.layer.query_grid);
  }

  #key(event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step && event.key !== "Escape") return;
    event.preventDefault();
    const [rows, columns] = this.layer.query_grid;
    const held = (value, count) => Math.min(count - 1, Math.max(0, value));
    if (!step) this.#pinned = null;
    else if (this.#pinned === null) this.#pinned = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    else {
      const row = held(Math.floor(this.#pinned / columns) + step[0], rows);
      this.#pinned = row * columns + held((this.#pinned % columns) + step[1], columns);
    }
    this.#changed();
  }
}
