// The generator, off the page's own thread: loads the model and runs it on onnxruntime-web's WebAssembly backend.

let session = null;
let ort = null;

self.onmessage = async ({ data }) => {
  try {
    if (data.kind === "open") await open(data);
    else await draw(data);
  } catch (error) {
    self.postMessage({ kind: "failed", id: data.id, message: String(error?.message ?? error) });
  }
};

async function open({ id, facts }) {
  const sizes = [facts.runtime.wasm.bytes, facts.model.bytes];
  const done = [0, 0];
  const tell = (part) => (bytes) => {
    done[part] = bytes;
    self.postMessage({ kind: "progress", id, done: done[0] + done[1], total: sizes[0] + sizes[1] });
  };
  const [module, wasm, model] = await Promise.all([
    import(`./${facts.runtime.script.file}`),
    bytesOf(facts.runtime.wasm.file, sizes[0], tell(0)),
    bytesOf(facts.model.file, sizes[1], tell(1)),
  ]);
  ort = module;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = 1; // more would need the server to send isolation headers
  ort.env.wasm.wasmBinary = wasm.buffer; // no second download, and no demands on the server's MIME types
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  self.postMessage({ kind: "done", id, inputs: session.inputNames, outputs: session.outputNames });
}

async function draw({ id, z, labels, count, outputs }) {
  const feeds = { latent: new ort.Tensor("float32", z, [count, z.length / count]) };
  if (session.inputNames.includes("class")) {
    feeds.class = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [count]);
  }
  const start = performance.now();
  const results = await session.run(feeds, outputs);
  const milliseconds = performance.now() - start;
  const arrays = {};
  for (const name of outputs) arrays[name] = results[name].data;
  self.postMessage({ kind: "done", id, arrays, milliseconds }, [...new Set(Object.values(arrays).map((a) => a.buffer))]);
}

/** A file's bytes, telling how many have come. */
async function bytesOf(file, size, tell) {
  const response = await fetch(`./${file}`);
  if (!response.ok) throw new Error(`${file}: the server answers ${response.status}`);
  const reader = response.body.getReader();
  let buffer = new Uint8Array(size);
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (filled + value.length > buffer.length) throw new Error(`${file}: longer than model.json says`);
    buffer.set(value, filled);
    filled += value.length;
    tell(filled);
  }
  if (filled !== size) throw new Error(`${file}: ${filled} of ${size} bytes came`);
  return buffer;
}
