// Runs the model of an exported page with Dawn, the WebGPU of Chromium, in Node.js.
//   node web.mjs FOLDER PAGE <cases.json >results.json
// FOLDER has npm's package `webgpu` in its node_modules. A case has `pixels` (base64 of f32) and
// `options` with width, height, channels and those of `Runner.run`. Its result is an array.
import { readFileSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runInThisContext } from 'node:vm';

const [, , folder, page] = process.argv;
const dawn = resolve(folder, 'node_modules/webgpu/index.js');
const { create } = await import(pathToFileURL(dawn).href);
// The object must stay alive as long as the device.
const gpu = create([]);
const html = readFileSync(page, 'utf8');

function script(id) {
  const start = html.indexOf('>', html.indexOf(`<script id="${id}"`)) + 1;
  return html.slice(start, html.indexOf('</script>', start));
}

runInThisContext(script('runner'));
const { Runner, decodeValues } = runInThisContext('({ Runner, decodeValues })');
const model = JSON.parse(script('model'));
const runner = await Runner.open(gpu, model, script('values'));
const results = [];
for (const { pixels, options } of JSON.parse(readFileSync(0, 'utf8'))) {
  const { width, height, channels, ...rest } = options;
  const image = { pixels: decodeValues(pixels), width, height, channels };
  const result = await runner.run(image, rest);
  results.push(Array.from(result.pixels));
}
let rest = Buffer.from(JSON.stringify(results));
while (rest.length > 0) {
  rest = rest.subarray(writeSync(1, rest));
}
// Dawn's threads keep Node.js running.
process.exit(0);
