// Small pictures of consecutive seeds, to choose from.

import { moved } from "./state.js";
import { paint } from "./view.js";

const COUNT = 16;

export class Seeds {
  #thumbs = [];
  #stale = new Set();
  #first = "0";
  #facts;

  /** `choose(seed, event)` is told of a click. */
  constructor(parent, facts, choose) {
    this.#facts = facts;
    for (let i = 0; i < COUNT; i++) {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      const canvas = Object.assign(document.createElement("canvas"), { width: facts.width, height: facts.height });
      const thumb = { button, canvas, seed: null };
      button.append(canvas);
      button.addEventListener("click", (event) => choose(thumb.seed, event));
      parent.append(button);
      this.#thumbs.push(thumb);
    }
    this.page(0);
  }

  /** Go `by` pages on; all are to be drawn afresh. */
  page(by) {
    this.#first = moved(this.#first, by * COUNT);
    for (const [i, thumb] of this.#thumbs.entries()) {
      thumb.seed = moved(this.#first, i);
      thumb.button.title = `seed ${thumb.seed}`;
      thumb.button.setAttribute("aria-label", thumb.button.title);
      this.#stale.add(thumb);
    }
  }

  /** The next one to be drawn, as { seed, paint(output) }; null when all are. */
  next() {
    const [thumb] = this.#stale;
    if (!thumb) return null;
    this.#stale.delete(thumb);
    return { seed: thumb.seed, paint: (output) => paint(thumb.canvas, output, 0, this.#facts) };
  }

  /** Mark the seed that is shown, and the one that is walked to (or null). */
  mark(seed, end) {
    for (const thumb of this.#thumbs) {
      thumb.button.setAttribute("aria-current", thumb.seed === seed);
      thumb.button.classList.toggle("end", thumb.seed === end);
    }
  }
}
