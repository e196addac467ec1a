// The page: keeps the state, wires the controls to it, and has the engine draw what it says.

import { Attention } from "./attention.js";
import { Engine } from "./engine.js";
import { slerp, squeeze } from "./latent.js";
import { drawn } from "./random.js";
import { Seeds } from "./seeds.js";
import { Sliders } from "./sliders.js";
import { moved, read, seedOf, write } from "./state.js";
import { paint } from "./view.js";

const PERIOD = 2600; // milliseconds of a walk, one way
const ALWAYS = 2 ** 20; // maps of so many numbers are fetched with every picture, larger ones when they are looked at
const UNTRUNCATED = 3; // beyond it the slider says "off"

const $ = (id) => document.getElementById(id);
const engine = new Engine();
const attention = new Attention($("frame"), $("overlay"), $("looking"), lookedElsewhere);
const latents = new Map(); // seed -> { z, label }
const times = []; // milliseconds of the latest pictures

let facts, state, sliders, seeds;
let wanted = false; // the picture is to be drawn
let busy = null; // a promise while the engine works
let playing = null; // the animation's handle
let shown = null; // { z, label, map, layer, milliseconds } of the picture on the page

/* ---------- drawing ---------- */

function latentOf(seed) {
  if (!latents.has(seed)) {
    if (latents.size > 999) latents.clear();
    latents.set(seed, drawn(seed, facts.latent, facts.num_classes));
  }
  return latents.get(seed);
}

/** The vector and the class that the state stands for. */
function request() {
  const from = latentOf(state.seed);
  const walked = state.to === null ? from.z : slerp(from.z, latentOf(state.to).z, state.walk);
  const z = Float32Array.from(squeeze(walked, state.truncation));
  for (const [index, value] of state.pinned) z[index] = value;
  return { z, label: state.label ?? from.label };
}

/** Draw what the state says, now or as soon as the engine is free; the newest wish wins. */
function refresh({ passing = false } = {}) {
  wanted = true;
  sync();
  if (!passing) remember();
  return pump();
}

function pump() {
  busy ??= work().catch(fail).finally(() => (busy = null));
  return busy;
}

async function work() {
  for (;;) {
    if (wanted) {
      await drawPicture();
      continue;
    }
    const thumb = seeds.next();
    if (thumb === null) return;
    const own = latentOf(thumb.seed);
    const z = Float32Array.from(squeeze(own.z, state.truncation));
    const { arrays } = await engine.draw(z, [state.label ?? own.label ?? 0], ["image"]);
    thumb.paint(arrays.image);
  }
}

async function drawPicture() {
  wanted = false;
  const { z, label } = request();
  const { layer } = attention;
  const outputs = ["image"];
  if (layer && (attention.query !== null || attention.size <= ALWAYS)) outputs.push(layer.output);
  const { arrays, milliseconds } = await engine.draw(z.slice(), [label ?? 0], outputs);
  shown = { z, label, map: layer ? (arrays[layer.output] ?? null) : null, layer, milliseconds };
  paint($("picture"), arrays.image, 0, facts);
  sliders.show(z, state.pinned);
  showAttention();
  tell();
}

function showAttention() {
  if (shown) attention.show(shown.layer === attention.layer ? shown.map : null, state.smooth);
}

function lookedElsewhere() {
  if (shown && attention.query !== null && !shown.map) refresh({ passing: true });
  else showAttention();
}

/* ---------- telling ---------- */

function tell() {
  const caption = [`seed ${state.seed}`];
  if (shown.label !== null) caption.push(facts.class_names[shown.label]);
  const changes = [];
  if (state.to !== null && state.walk > 0) {
    changes.push(`${Math.round(100 * state.walk)} % of the way to seed ${state.to}`);
  }
  if (state.truncation !== null) changes.push(`truncated at ${state.truncation}`);
  if (state.pinned.size) changes.push(`${state.pinned.size} of ${facts.latent} latents moved`);
  $("caption").textContent = caption.join(" · ");
  $("changes").textContent = changes.join(" · ");
  $("frame").setAttribute("aria-label", `Picture of ${[...caption, ...changes].join(", ")}`);
  times.push(shown.milliseconds);
  if (times.length > 15) times.shift();
  const median = [...times].sort((a, b) => a - b)[times.length >> 1];
  $("milliseconds").textContent = `${median.toFixed(median < 10 ? 1 : 0)} ms`;
}

/** Bring the controls to the state; what is being typed is left alone. */
function sync() {
  for (const [id, text] of [["seed", state.seed], ["to", state.to ?? ""]]) {
    if (document.activeElement !== $(id)) $(id).value = text;
  }
  $("class").value = state.label ?? "";
  $("truncation").value = state.truncation ?? $("truncation").max;
  $("truncation-value").textContent = state.truncation === null ? "off" : state.truncation.toFixed(2);
  $("walk").value = state.walk;
  $("smooth").checked = state.smooth;
  document.body.classList.toggle("smooth", state.smooth);
  $("reset").disabled = state.pinned.size === 0;
  $("play").textContent = playing ? "Stop" : "Play";
  $("play").setAttribute("aria-pressed", Boolean(playing));
  seeds.mark(state.seed, state.walk > 0 ? state.to : null);
}

let writing = 0;
function remember() {
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", write(state, facts)), 150);
}

function fail(error) {
  $("boot").hidden = false;
  $("boot-bar").hidden = true;
  $("boot-text").textContent = `This does not work: ${error.message}`;
  document.body.dataset.state = "failed";
  throw error;
}

/* ---------- changing ---------- */

const anySeed = () => String(Math.floor(Math.random() * 1e6));

function choose(seed) {
  stop();
  Object.assign(state, { seed, walk: 0 });
  state.pinned.clear();
  refresh();
}

function walkTo(seed) {
  state.to = seed;
  if (!playing && state.walk === 0) state.walk = 0.5;
  refresh();
}

function play() {
  if (playing) return stop();
  state.to ??= anySeed();
  const start = performance.now() - (Math.acos(1 - 2 * state.walk) / Math.PI) * PERIOD;
  const frame = (now) => {
    state.walk = (1 - Math.cos((Math.PI * (now - start)) / PERIOD)) / 2;
    playing = requestAnimationFrame(frame);
    refresh({ passing: true });
  };
  playing = requestAnimationFrame(frame);
}

function stop() {
  if (!playing) return;
  cancelAnimationFrame(playing);
  playing = null;
  refresh();
}

/** Change what the small pictures show as well. */
function refreshAll(pages = 0) {
  seeds.page(pages);
  return refresh();
}

function save() {
  $("picture").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    const label = state.label === null ? "" : `-class${String(state.label).padStart(3, "0")}`;
    link.download = `seed${state.seed.padStart(6, "0")}${label}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

async function copy() {
  history.replaceState(null, "", write(state, facts));
  await navigator.clipboard.writeText(location.href);
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy link"), 1500);
}

function wire() {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  on("random", "click", () => choose(anySeed()));
  on("seed-down", "click", () => choose(moved(state.seed, -1)));
  on("seed-up", "click", () => choose(moved(state.seed, 1)));
  for (const [id, act] of [["seed", choose], ["to", walkTo]]) {
    on(id, "input", () => seedOf($(id).value) !== null && act(seedOf($(id).value)));
    on(id, "blur", sync);
  }
  on("class", "change", () => {
    state.label = $("class").value === "" ? null : Number($("class").value);
    refreshAll();
  });
  on("truncation", "input", () => {
    const value = Number($("truncation").value);
    state.truncation = value > UNTRUNCATED ? null : value;
    refreshAll();
  });
  on("walk", "input", () => {
    const walk = Number($("walk").value);
    stop();
    state.to ??= anySeed();
    state.walk = walk;
    refresh();
  });
  on("play", "click", play);
  on("smooth", "change", () => {
    state.smooth = $("smooth").checked;
    refresh();
  });
  on("layer", "change", () => {
    attention.choose(facts.attention[Number($("layer").value)]);
    refresh();
  });
  on("save", "click", save);
  on("copy", "click", copy);
  on("reset", "click", () => {
    state.pinned.clear();
    refresh();
  });
  on("earlier", "click", () => refreshAll(-1));
  on("later", "click", () => refreshAll(1));
  window.addEventListener("hashchange", () => {
    stop();
    state = read(location.hash, facts);
    refreshAll();
  });
  window.addEventListener("resize", showAttention);
  document.addEventListener("keydown", shortcut);
}

function shortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input[type=text], select")) return;
  const keys = { r: () => choose(anySeed()), p: play, d: save, s: () => $("smooth").click() };
  if (!event.target.closest("input, #frame")) {
    Object.assign(keys, { ArrowLeft: () => $("seed-down").click(), ArrowRight: () => $("seed-up").click() });
  }
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

/* ---------- the beginning ---------- */

function furnish() {
  document.title = facts.title;
  $("title").textContent = facts.title;
  $("about").textContent = facts.about;
  const time = Object.assign(document.createElement("span"), { id: "milliseconds" });
  $("facts").append("A picture takes ", time, ` on one thread of onnxruntime-web ${facts.runtime.version}.`);
  document.documentElement.style.setProperty("--ratio", facts.width / facts.height);
  document.body.classList.toggle("see-through", facts.channels === 4);
  $("copy").hidden = !navigator.clipboard;
  if (facts.num_classes) {
    $("class-group").hidden = false;
    $("class").add(new Option("as the seed has it", ""));
    facts.class_names.forEach((name, i) => $("class").add(new Option(name, i)));
  }
  facts.attention.forEach(({ name, query_grid: q, key_grid: k }, i) =>
    $("layer").add(new Option(`layer ${name}: ${q.join(" × ")} look at ${k.join(" × ")}`, i)));
  if (facts.attention.length) {
    attention.choose(facts.attention.at(-1)); // the one nearest the picture
    $("layer").value = facts.attention.length - 1;
    $("layer-group").hidden = facts.attention.length < 2;
  }
  seeds = new Seeds($("seeds"), facts, (seed, event) => (event.shiftKey ? walkTo : choose)(seed));
  sliders = new Sliders($("sliders"), $("more"), facts.latent_order, (index, value) => {
    if (value === null) state.pinned.delete(index);
    else state.pinned.set(index, value);
    refresh();
  });
}

async function start() {
  $("boot-hint").hidden = true;
  const response = await fetch("./model.json");
  if (!response.ok) throw new Error(`model.json: the server answers ${response.status}`);
  facts = await response.json();
  if (facts.format !== 1) throw new Error(`model.json has format ${facts.format}, and this page reads format 1`);
  state = read(location.hash, facts);
  furnish();
  await engine.open(facts, (done, total) => {
    $("boot-bar").value = done / total;
    $("boot-text").textContent = `Loading the generator: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
  });
  wire();
  await refresh();
  $("boot").hidden = true;
  document.body.dataset.state = "ready";
}

/** For scripts: what is on the page, and a promise for when everything wished for is drawn. */
window.sagan = {
  get facts() { return facts; },
  get state() { return state; },
  get shown() { return shown; },
  idle: () => busy ?? Promise.resolve(),
};
start().catch(fail);
