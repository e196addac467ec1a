// What the page shows, as one object, and the same as the address's hash, so that a link shows it again.

export const LAST_SEED = 10n ** 18n - 1n;
const STEPS = 4; // digits after the point of a number in a link

/** The state that an address's hash stands for; whatever makes no sense there is passed over. */
export function read(hash, facts) {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const state = {
    seed: seedOf(query.get("seed")) ?? "0",
    label: null,
    truncation: null,
    to: seedOf(query.get("to")),
    walk: 0,
    pinned: new Map(),
    smooth: query.has("smooth") ? query.get("smooth") === "1" : Math.max(facts.height, facts.width) > 64,
  };
  if (query.has("class")) state.label = labelOf(query.get("class"), facts);
  const truncation = Number(query.get("truncation"));
  if (truncation > 0 && truncation <= 8) state.truncation = truncation;
  const walk = Number(query.get("walk"));
  if (state.to !== null && walk > 0 && walk <= 1) state.walk = walk;
  for (const part of (query.get("z") ?? "").split(",")) {
    const match = /^(\d+):(-?\d+(?:\.\d+)?)$/.exec(part);
    if (match && Number(match[1]) < facts.latent && Math.abs(Number(match[2])) <= 8) {
      state.pinned.set(Number(match[1]), Number(match[2]));
    }
  }
  return state;
}

/** The hash of a state, shortest form. */
export function write(state, facts) {
  const query = [`seed=${state.seed}`];
  if (state.label !== null) query.push(`class=${encodeURIComponent(facts.class_names[state.label])}`);
  if (state.truncation !== null) query.push(`truncation=${short(state.truncation)}`);
  if (state.to !== null && state.walk > 0) query.push(`to=${state.to}`, `walk=${short(state.walk)}`);
  if (state.pinned.size) query.push(`z=${[...state.pinned].map(([i, v]) => `${i}:${short(v)}`).join(",")}`);
  if (state.smooth !== Math.max(facts.height, facts.width) > 64) query.push(`smooth=${state.smooth ? 1 : 0}`);
  return `#${query.join("&")}`;
}

/** A seed in the form that it is hashed in, digits without leading zeros, or null. */
export function seedOf(text) {
  return /^\d{1,18}$/.test(text ?? "") ? String(BigInt(text)) : null;
}

/** The seed `by` further on, held between 0 and the last one. */
export function moved(seed, by) {
  const next = BigInt(seed) + BigInt(by);
  return String(next < 0n ? 0n : next > LAST_SEED ? LAST_SEED : next);
}

function labelOf(text, facts) {
  const index = facts.class_names.indexOf(text);
  if (index >= 0) return index;
  return /^\d+$/.test(text) && Number(text) < facts.num_classes ? Number(text) : null;
}

const short = (number) => String(Number(number.toFixed(STEPS)));
