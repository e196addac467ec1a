// The page's side of the worker: promises for messages.

export class Engine {
  #worker;
  #waiting = new Map();
  #last = 0;

  constructor() {
    this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      const { resolve, reject, progress } = this.#waiting.get(data.id);
      if (data.kind === "progress") return progress?.(data.done, data.total);
      this.#waiting.delete(data.id);
      if (data.kind === "failed") reject(new Error(data.message));
      else resolve(data);
    };
    this.#worker.onerror = (event) => {
      const error = new Error(event.message || "the browser cannot start the generator (module workers are needed)");
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
  }

  /** Load runtime and model; `progress(done, total)` in bytes. */
  open(facts, progress) {
    return this.#ask({ kind: "open", facts }, [], progress);
  }

  /** Draw `labels.length` pictures from z (count x latent, in one Float32Array); which outputs to fetch by name. */
  draw(z, labels, outputs) {
    return this.#ask({ kind: "draw", z, labels, count: labels.length, outputs }, [z.buffer]);
  }

  #ask(message, moved, progress) {
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, progress });
      this.#worker.postMessage({ ...message, id }, moved);
    });
  }
}
