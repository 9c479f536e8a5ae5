// Compiles shaders with Dawn, the WebGPU of Chromium, and reports what it refuses.
//   node dawn.mjs FOLDER <shaders.json >faults.json
// FOLDER has npm's package `webgpu` in its node_modules. The input is an array of
// {text, constants}, the output an array with null or {line, message} for each shader.
import { readFileSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const folder = resolve(process.argv[2], 'node_modules/webgpu/index.js');
const { create } = await import(pathToFileURL(folder).href);
// Dawn's null backend needs no driver. It compiles pipelines up to the output of code.
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
// The limits are WebGPU's defaults, which every browser grants.
const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups'] });

// Many shaders differ only in their constants.
const modules = new Map();

async function parse(code) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  const failed = await device.popErrorScope();
  // Messages of type `info` say more about the error or warning before them.
  const first = messages.findIndex((message) => message.type !== 'info');
  if (first < 0) {
    return { module, fault: failed && { line: 0, message: failed.message } };
  }
  const texts = messages.slice(first).map(({ type, lineNum, message }) => {
    return `${type} in line ${lineNum}: ${message}`;
  });
  return { module, fault: { line: messages[first].lineNum, message: texts.join('\n') } };
}

async function compile({ text, constants }) {
  if (!modules.has(text)) {
    modules.set(text, await parse(text));
  }
  const { module, fault } = modules.get(text);
  if (fault) {
    return fault;
  }
  const compute = { module, entryPoint: 'main', constants };
  try {
    await device.createComputePipelineAsync({ layout: 'auto', compute });
    return null;
  } catch (error) {
    return { line: 0, message: error.message };
  }
}

const faults = [];
for (const shader of JSON.parse(readFileSync(0, 'utf8'))) {
  faults.push(await compile(shader));
}
let rest = Buffer.from(JSON.stringify(faults));
while (rest.length > 0) {
  rest = rest.subarray(writeSync(1, rest));
}
// Dawn's threads keep Node.js running.
process.exit(0);
