// A transformer: transformers.js and ONNX Runtime answer. A file lies inside this page, beside it, or, libraries only, on a
// CDN.

async function library(name, type) {  // the checksum is looked at wherever the file comes from
  const { url, integrity } = card.libraries[name];
  const response = held("lib/" + name) ?? await fetch(url, { integrity });
  if (!response.ok) throw new Error(`${url} is not there`);
  return URL.createObjectURL(new Blob([await response.arrayBuffer()], { type }));
}

function cutAsPythonDoes(tokenizer) {  // transformers.js cuts on the right alone, and the last special token with it
  const encode = tokenizer._encode_plus.bind(tokenizer), special = encode("").input_ids.length;
  tokenizer._encode_plus = (...asked) => {
    const inputs = encode(...asked), most = tokenizer.model_max_length, over = inputs.input_ids.length - most;
    const from = tokenizer.config.truncation_side === "left" ? special >> 1 : most - ((special + 1) >> 1);
    if (over > 0) for (const column of Object.values(inputs)) column.splice(from, over);
    return inputs;
  };
}

async function load() {
  const { env, pipeline } = await import(await library("transformers.min.js", "text/javascript"));
  env.allowRemoteModels = env.useBrowserCache = env.useWasmCache = false;
  env.allowLocalModels = true;
  env.localModelPath = "./";
  env.fetch = async (path, options) => held(path.replace("./", "")) ?? fetch(path, options);
  const wasm = env.backends.onnx.wasm;
  wasm.numThreads = 1;  // a small student has no work for two, and threads want headers that simple servers do not send
  wasm.wasmPaths = {
    mjs: await library("ort-wasm-simd-threaded.mjs", "text/javascript"),
    wasm: await library("ort-wasm-simd-threaded.wasm", "application/wasm"),
  };
  classify = await pipeline("text-classification", "./", { dtype: "q8", device: "wasm" });
  cutAsPythonDoes(classify.tokenizer);
  await answer("The first answer takes longer.");
}
