// One slider for each number of the latent vector: first those that change the picture most, the others on demand.

const FEW = 12;
const REACH = 3.5;

export class Sliders {
  #rows = [];
  #all = false;

  /** `change(index, value)` is told of a move, with null when a double click gives the number back to the seed. */
  constructor(parent, more, order, change) {
    const count = order.length;
    order.forEach((i, place) => {
      const row = document.createElement("label");
      const name = Object.assign(document.createElement("span"), { textContent: i });
      const input = Object.assign(document.createElement("input"), { type: "range", min: -REACH, max: REACH, step: 0.01 });
      const output = document.createElement("output");
      input.setAttribute("aria-label", `Latent ${i}`);
      input.addEventListener("input", () => change(i, Number(input.value)));
      row.addEventListener("dblclick", () => change(i, null));
      row.title = "Double click gives it back to the seed.";
      row.hidden = place >= FEW;
      row.append(name, input, output);
      parent.append(row);
      this.#rows.push({ row, input, output, i });
    });
    more.hidden = count <= FEW;
    more.textContent = `All ${count}`;
    more.addEventListener("click", () => {
      this.#all = !this.#all;
      more.textContent = this.#all ? "Fewer" : `All ${count}`;
      more.setAttribute("aria-expanded", this.#all);
      this.show(this.z, this.pinned);
    });
  }

  /** Bring the sliders to a vector; those in `pinned` were moved by hand. */
  show(z, pinned) {
    this.z = z;
    this.pinned = pinned;
    for (const [place, { row, input, output, i }] of this.#rows.entries()) {
      row.hidden = place >= FEW && !this.#all && !pinned.has(i);
      if (row.hidden) continue;
      if (document.activeElement !== input || !pinned.has(i)) input.value = z[i];
      output.textContent = z[i].toFixed(2).replace("-", "−");
      row.classList.toggle("moved", pinned.has(i));
    }
  }
}
