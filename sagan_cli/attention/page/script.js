// State of the page, drawing and events.
(() => {
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const [tall, wide] = data.size;
  const last = data.checkpoints.length - 1;
  const chosen = {
    sample: 0,
    layer: data.layers.findLastIndex((layer) => layer.network === "G"),
    checkpoint: last,
    at: [0.5, 0.5], // The query, in fractions of the image's height and width.
    opacity: 0.7,
    smooth: true,
    contrast: false, // Colours start at a map's minimum instead of 0.
  };
  if (chosen.layer < 0) chosen.layer = 0;
  const pins = data.captions.map(() => []); // By image: {at, name, colour}.
  const maps = new Map(); // By checkpoint, layer and image: a map or its promise.
  let shown = null; // The state on the screen.
  let playing = 0;
  let pointer = "mouse";

  const words = { G: "Generator", D: "Discriminator" };
  const percent = (share, digits) => `${(100 * share).toFixed(digits ?? (share < 0.0995 ? 1 : 0))} %`;
  const count = (number) => number.toLocaleString("en-GB");
  const fixed = (number, digits) => (number === null ? "–" : number.toFixed(digits).replace("-", "−"));
  const cell = (at, grid) => at.map((share, k) => Math.min(grid[k] - 1, Math.max(0, Math.floor(share * grid[k]))));
  const centre = (position, grid) => position.map((index, k) => (index + 0.5) / grid[k]);
  const named = (position) => `row ${position[0] + 1}, column ${position[1] + 1}`;
  const grid = ([h, w]) => `${h}\u00a0×\u00a0${w}`;
  const title = (layer) => `${(words[layer.network] ?? layer.network).toLowerCase()}, layer ${layer.name}`;

  /** Return a decoded map, or null and draw again when it is decoded. */
  function need(checkpoint, layer, sample) {
    const key = `${checkpoint}/${layer}/${sample}`;
    const found = maps.get(key);
    if (found) return found instanceof Promise ? null : found;
    const about = data.layers[layer];
    const coming = decoded(data.checkpoints[checkpoint].layers[layer].maps[sample], data.levels, about.queries, about.keys);
    maps.set(key, coming);
    coming.then((map) => { maps.set(key, map); show(); }, fail);
    return null;
  }

  function choose(change) {
    Object.assign(chosen, change);
    show();
  }

  function show() {
    const map = need(chosen.checkpoint, chosen.layer, chosen.sample);
    if (!map) return; // Keep the old view until the new map is decoded.
    const about = data.layers[chosen.layer];
    const stored = data.checkpoints[chosen.checkpoint].layers[chosen.layer];
    const position = cell(chosen.at, about.queries);
    const n = position[0] * about.queries[1] + position[1];
    const view = [chosen.checkpoint, chosen.layer, chosen.sample].join();
    const before = shown;
    shown = { ...chosen, view, position, n, row: map.row(n), entropy: map.entropy(n), distance: map.distance(n), map };
    if (before?.view !== view) settle(about, stored);
    paint(about);
    tell(about, stored);
    pinned(about);
  }

  /** Update what depends on image, layer and checkpoint only. */
  function settle(about, stored) {
    const checkpoint = data.checkpoints[shown.checkpoint];
    by("image").src = data.images[checkpoint.images[shown.sample]];
    by("caption").textContent = by("caption").title = data.captions[shown.sample];
    by("badge").hidden = !stored.idle;
    by("gamma").textContent = fixed(stored.gamma, 3);
    const strength = stored.strength[shown.sample];
    by("strength").textContent = strength === null ? "–" : percent(strength);
    document.querySelectorAll("#thumbs button").forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === shown.sample));
      button.tabIndex = i === shown.sample ? 0 : -1;
      const source = data.images[checkpoint.images[i]];
      if (button.firstChild.getAttribute("src") !== source) button.firstChild.src = source;
    });
    const strip = by("thumbs");
    const thumb = strip.children[shown.sample];
    strip.scrollLeft = thumb.offsetLeft - strip.offsetLeft - (strip.clientWidth - thumb.clientWidth) / 2;
    document.querySelectorAll("#layers input").forEach((input, i) => (input.checked = i === shown.layer));
    by("step").value = shown.checkpoint;
    by("stepname").textContent = `step ${stepname(checkpoint, shown.checkpoint)}`;
    by("step").setAttribute("aria-valuetext", `step ${stepname(checkpoint, shown.checkpoint)}`);
    course();
    by("picture").setAttribute(
      "aria-label",
      `Image ${shown.sample + 1} of ${data.captions.length}, ${data.captions[shown.sample]}, and attention of the ` +
        `${title(about)}. Arrow keys move the position, Enter pins it.`,
    );
    const [queries, keys] = about.groups;
    const grouped = [];
    if (queries > 1) grouped.push(`queries in groups of ${queries} × ${queries}, as their mean`);
    if (keys > 1) grouped.push(`keys in groups of ${keys} × ${keys}, as their sum`);
    by("kept").textContent =
      `Attention is stored in ${data.levels} levels of its square root` +
      (grouped.length ? `; to keep this file small, this layer has ${grouped.join(", and ")}.` : ", at the layer's own resolution.");
  }

  const stepname = (checkpoint, i) => (checkpoint.step === null ? String(i + 1) : count(checkpoint.step));

  /** Draw the two maps and the colour bar. */
  function paint(about) {
    const whole = fresh(by("overlay"));
    lay(whole, data.scale, shown.row, about.keys, chosen);
    const alone = fresh(by("keys"));
    lay(alone, data.scale, shown.row, about.keys, { contrast: chosen.contrast, veil: 1 });
    const here = pins[shown.sample];
    for (const [view, radius] of [[whole, 9], [alone, 5]]) {
      for (const pin of here) dot(view, centre(cell(pin.at, about.queries), about.queries), pin.name, pin.colour, radius);
      outline(view, shown.position, about.queries);
    }
    const [low, top] = ends(shown.row, chosen.contrast);
    const even = 1 / shown.row.length;
    const exact = chosen.contrast && top < 1.5 * low ? 2 : undefined;
    by("low").textContent = low ? percent(low, exact) : "0";
    by("top").textContent = percent(top, exact);
    by("even").textContent = `uniform ${percent(even, exact)}`;
    by("tick").style.left = `${100 * Math.min(Math.max((even - low) / Math.max(top - low, 1e-12), 0), 1)}%`;
  }

  /** Update text and numbers of the query. */
  function tell(about, stored) {
    const top = Math.max(...shown.row);
    const most = shown.row.indexOf(top);
    const key = [Math.floor(most / about.keys[1]), most % about.keys[1]];
    by("entropy").textContent = shown.entropy.toFixed(2);
    by("distance").textContent = shown.distance.toFixed(2);
    by("where").textContent = named(shown.position);
    by("peak").textContent = `maximum ${percent(top)}, ${named(key)}`;
    by("keys").setAttribute("aria-label", `Map: maximum at ${named(key)} of ${grid(about.keys)}, ${percent(top)}`);
    const who = words[about.network] ?? about.network;
    by("notice").textContent = stored.idle
      ? "This layer is idle: it changes its input by less than 1 %, so its maps have almost no effect."
      : shown.entropy > 0.98
        ? "The attention of this query is almost uniform. Full contrast shows the small differences."
        : "";
    const bright = document.createElement("strong");
    bright.textContent = "Brightness is the attention of the outlined query";
    by("explain").replaceChildren(
      `${who}, layer ${about.name}: every position reads values from all positions of the image. `,
      bright,
      ` to each of ${grid(about.keys)} keys.`,
    );
    const text = `${named(shown.position)} of ${grid(about.queries)}: maximum at ${named(key)} of ${grid(about.keys)}, ${percent(top)}; entropy ${shown.entropy.toFixed(2)}`;
    clearTimeout(tell.later);
    tell.later = setTimeout(() => (by("said").textContent = text), 400);
  }

  /** Draw the small images of the pinned positions. */
  function pinned(about) {
    const here = pins[shown.sample];
    const list = by("pins");
    const view = shown.view + here.map((pin) => pin.name) + [chosen.opacity, chosen.smooth, chosen.contrast];
    if (list.dataset.view !== view) {
      list.dataset.view = view;
      list.replaceChildren(...here.map((pin) => card(pin, about)));
      by("nopins").hidden = here.length > 0;
      by("clear").hidden = !here.length;
    }
    [...list.children].forEach((item, i) => {
      const same = same_cell(here[i], about);
      item.firstChild.classList.toggle("current", same);
      item.firstChild.setAttribute("aria-pressed", String(same));
    });
    by("pin").textContent = here.some((pin) => same_cell(pin, about)) ? "Unpin this position" : "Pin this position";
  }

  const same_cell = (pin, about) => cell(pin.at, about.queries).join() === shown.position.join();

  function card(pin, about) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const remove = document.createElement("button");
    const position = cell(pin.at, about.queries);
    button.type = remove.type = "button";
    button.className = "pin";
    button.style.setProperty("--colour", pin.colour[0]);
    button.setAttribute("aria-label", `Pin ${pin.name}: ${named(position)}`);
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove pin ${pin.name}`);
    button.append(canvas);
    item.append(button, remove);
    button.addEventListener("click", () => choose({ at: pin.at }));
    remove.addEventListener("click", () => unpin(pin));
    const width = Math.min(220, (96 * wide) / tall);
    const view = fresh(canvas, width, (width * tall) / wide);
    const row = shown.map.row(position[0] * about.queries[1] + position[1]);
    const image = new Image();
    image.onload = () => {
      view.context.imageSmoothingEnabled = !small;
      view.context.drawImage(image, 0, 0, view.width, view.height);
      lay(view, data.scale, row, about.keys, chosen);
      dot(view, centre(position, about.queries), pin.name, pin.colour, 8);
    };
    image.src = data.images[data.checkpoints[shown.checkpoint].images[shown.sample]];
    return item;
  }

  function toggle() {
    const about = data.layers[shown.layer];
    const found = pins[shown.sample].find((pin) => same_cell(pin, about));
    if (found) return unpin(found);
    const here = pins[shown.sample];
    let name = 1;
    while (here.some((pin) => pin.name === name)) name++;
    here.push({ at: centre(shown.position, about.queries), name, colour: data.dots[(name - 1) % data.dots.length] });
    show();
  }

  function unpin(pin) {
    pins[shown.sample] = pins[shown.sample].filter((other) => other !== pin);
    show();
  }

  /** Draw the strength over the checkpoints and mark the current one. */
  function course() {
    if (!last) return;
    const values = data.checkpoints.map((checkpoint) => checkpoint.layers[shown.layer].strength[shown.sample] ?? 0);
    const top = Math.max(...values, 1e-9);
    const points = values.map((value, i) => `${(100 * i) / last},${23 - (21 * value) / top}`).join(" ");
    const x = (100 * shown.checkpoint) / last;
    const make = (name, pairs) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(pairs)) made.setAttribute(key, value);
      return made;
    };
    by("course").replaceChildren(make("polyline", { points }), make("line", { x1: x, x2: x, y1: 0, y2: 24 }));
  }

  const step = (list, now, by) => (now + by + list.length) % list.length;
  const next = { sample: (by) => choose({ sample: step(data.captions, chosen.sample, by) }),
    layer: (by) => choose({ layer: step(data.layers, chosen.layer, by) }) };

  function play() {
    clearInterval(playing);
    playing = playing ? 0 : setInterval(() => choose({ checkpoint: step(data.checkpoints, chosen.checkpoint, 1) }), 900);
    by("play").setAttribute("aria-pressed", String(Boolean(playing)));
  }

  function locate(event, element = by("picture")) {
    const box = element.getBoundingClientRect();
    return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
  }

  function move(event) {
    const at = locate(event);
    const queries = data.layers[chosen.layer].queries;
    if (cell(at, queries).join() !== cell(chosen.at, queries).join()) choose({ at });
  }

  const small = Math.max(tall, wide) < 160;

  function build() {
    document.documentElement.style.setProperty("--ratio", wide / tall);
    document.querySelector(".stage").classList.toggle("wide", wide > 2 * tall);
    by("image").classList.toggle("crisp", small);
    for (const network of new Set(data.layers.map((layer) => layer.network))) {
      const set = document.createElement("fieldset");
      const legend = document.createElement("legend");
      const options = document.createElement("div");
      legend.textContent = words[network] ?? network;
      options.className = "options";
      set.append(legend, options);
      data.layers.forEach((layer, i) => {
        if (layer.network !== network) return;
        const label = document.createElement("label");
        const input = document.createElement("input");
        const idle = document.createElement("small");
        Object.assign(input, { type: "radio", name: "layer", value: i });
        input.setAttribute("aria-label", title(layer));
        input.addEventListener("change", () => choose({ layer: i }));
        if (data.checkpoints[last].layers[i].idle) idle.textContent = " idle";
        const side = layer.queries.map((n) => n * layer.groups[0]);
        label.append(input, layer.name === String(Math.max(...side)) ? grid(side) : layer.name, idle);
        options.append(label);
      });
      by("layers").append(set);
    }
    data.captions.forEach((caption, i) => {
      const button = document.createElement("button");
      const image = new Image();
      Object.assign(button, { type: "button", title: caption });
      button.setAttribute("role", "radio");
      button.setAttribute("aria-label", caption);
      image.alt = "";
      image.classList.toggle("crisp", small);
      button.append(image);
      button.addEventListener("click", () => choose({ sample: i }));
      by("thumbs").append(button);
    });
    document.documentElement.dataset.checkpoints = data.checkpoints.length;
    by("step").max = last;
    const bar = by("bar").getContext("2d");
    bar.drawImage(tinted(data.scale, Array.from({ length: 256 }, (_, i) => i), [1, 256], [0, 255]), 0, 0);
    opacity();
    theme();
  }

  function opacity() {
    by("percent").textContent = `${by("opacity").value} %`;
    chosen.opacity = by("opacity").value / 100;
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const scheme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  function theme() {
    by("theme").textContent = scheme() === "dark" ? "Light" : "Dark";
  }

  function listen() {
    const picture = by("picture");
    picture.addEventListener("pointerdown", (event) => {
      pointer = event.pointerType;
      // A first tap moves the query, as the pointer does; a tap on the outlined cell pins it.
      const queries = data.layers[chosen.layer].queries;
      picture.dataset.moved = String(cell(locate(event), queries).join() !== cell(chosen.at, queries).join());
      move(event);
    });
    picture.addEventListener("pointermove", move);
    picture.addEventListener("pointerleave", () => {
      const here = pins[chosen.sample];
      if (here.length && pointer === "mouse") choose({ at: here[here.length - 1].at });
    });
    picture.addEventListener("click", () => {
      if (pointer === "mouse" || picture.dataset.moved === "false") toggle();
    });
    picture.addEventListener("keydown", (event) => {
      const way = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (way && !event.altKey && !event.ctrlKey && !event.metaKey) {
        const queries = data.layers[chosen.layer].queries;
        const position = cell(chosen.at, queries).map((k, axis) => Math.min(queries[axis] - 1, Math.max(0, k + way[axis])));
        choose({ at: centre(position, queries) });
      } else if (event.key === "Enter" || event.key === " ") toggle();
      else return;
      event.preventDefault();
    });
    by("map").addEventListener("pointermove", (event) => {
      const keys = data.layers[shown.layer].keys;
      const position = cell(locate(event, by("map")), keys);
      by("peak").textContent = `${percent(shown.row[position[0] * keys[1] + position[1]])}, ${named(position)}`;
    });
    by("map").addEventListener("pointerleave", show);
    by("thumbs").addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      next.sample(way);
      by("thumbs").children[chosen.sample].focus();
    });
    document.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const act = {
        "[": () => next.sample(-1), ",": () => next.sample(-1), "]": () => next.sample(1), ".": () => next.sample(1),
        l: () => next.layer(1), L: () => next.layer(1), p: () => last && play(), P: () => last && play(),
        c: () => by("contrast").click(), C: () => by("contrast").click(), Escape: clear,
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
    by("step").addEventListener("input", () => choose({ checkpoint: Number(by("step").value) }));
    by("opacity").addEventListener("input", () => { opacity(); show(); });
    by("smooth").addEventListener("change", () => choose({ smooth: by("smooth").checked }));
    by("contrast").addEventListener("change", () => choose({ contrast: by("contrast").checked }));
    by("play").addEventListener("click", play);
    by("pin").addEventListener("click", toggle);
    by("clear").addEventListener("click", clear);
    by("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = scheme() === "dark" ? "light" : "dark";
      theme();
    });
    dark.addEventListener("change", theme);
    new ResizeObserver(() => shown && paint(data.layers[shown.layer])).observe(by("picture"));
  }

  function clear() {
    pins[chosen.sample] = [];
    show();
  }

  function fail(error) {
    by("trouble").hidden = false;
    by("trouble").textContent = `This page cannot be shown: ${error.message}. It requires a browser of 2024 or newer.`;
    throw error;
  }

  /** Decode all other maps in the background, so that switching is immediate. */
  async function rest() {
    for (let checkpoint = last; checkpoint >= 0; checkpoint--)
      for (let layer = 0; layer < data.layers.length; layer++)
        for (let sample = 0; sample < data.captions.length; sample++) {
          need(checkpoint, layer, sample);
          await maps.get(`${checkpoint}/${layer}/${sample}`);
        }
  }

  async function start() {
    build();
    by("main").hidden = false;
    show();
    await maps.get(`${chosen.checkpoint}/${chosen.layer}/${chosen.sample}`);
    show();
    listen();
    setTimeout(rest, 50);
  }

  /** For tests: the state on the screen. */
  window.sagan = {
    ready: start().catch(fail),
    state: () => ({
      sample: shown.sample, checkpoint: shown.checkpoint, step: data.checkpoints[shown.checkpoint].step, ...data.layers[shown.layer],
      layer: shown.layer, query: shown.position, entropy: shown.entropy, distance: shown.distance,
      idle: data.checkpoints[shown.checkpoint].layers[shown.layer].idle, opacity: chosen.opacity, smooth: chosen.smooth, contrast: chosen.contrast,
      pins: pins[shown.sample].map((pin) => ({ name: pin.name, colour: pin.colour[0], cell: cell(pin.at, data.layers[shown.layer].queries) })),
      playing: Boolean(playing), scheme: scheme(),
      settled: ["sample", "layer", "checkpoint", "at"].every((part) => shown[part] === chosen[part]),
    }),
    map: () => shown.row,
  };
})();
