// onnxruntime-web on the exported network: WebAssembly, one thread, every optimisation of the graph.
globalThis.load = async (inputs) => {
  const ort = await import("./ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./", location.href).href;
  const session = await ort.InferenceSession.create("./unet.onnx", {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
  const feeds = {};
  for (const [name, { values, shape }] of Object.entries(inputs)) {
    feeds[name] = new ort.Tensor("float32", Float32Array.from(values), shape);
  }
  globalThis.passes = async (count) => {
    let [best_ms, output] = [Infinity, null];
    for (let done = 0; done < count; done++) {
      const began = performance.now();
      ({ output } = await session.run(feeds));
      best_ms = Math.min(best_ms, performance.now() - began);
    }
    return { best_ms, output: [...output.data] };
  };
  return true;
};
true;
