'use strict';
// Replays recorded passes with WebGPU. It needs no document, so that it also runs in Node.js.

// Alignment of the parameter blocks in their buffer: WebGPU guarantees that 256 bytes are enough.
const BLOCK = 256;
// Numbers of bindings are below this.
const BINDINGS = 16;

// The values of a model from their base64 text: little-endian f32.
function decodeValues(text) {
  if (Uint8Array.fromBase64) {
    return new Float32Array(Uint8Array.fromBase64(text).buffer);
  }
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) {
    bytes[i] = binary.charCodeAt(i);
  }
  return new Float32Array(bytes.buffer);
}

// A device with the limits that every browser grants. Throws an error for people.
async function openDevice(gpu) {
  if (!gpu) {
    throw new Error('This browser has no WebGPU.');
  }
  const fast = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  const adapter = fast ?? (await gpu.requestAdapter());
  if (!adapter) {
    throw new Error('This browser has WebGPU, but found no graphics adapter that it can use.');
  }
  return adapter.requestDevice();
}

class Engine {
  // Compiles the pipelines of a model and uploads its values.
  static async open(device, model, values) {
    const engine = new Engine();
    engine.device = device;
    device.pushErrorScope('validation');
    device.pushErrorScope('out-of-memory');
    const [count] = model.values;
    const [parameters, states] = [values.subarray(0, count), values.subarray(count)];
    engine.shared = [
      engine.buffer(4 * parameters.length),
      engine.buffer(4 * states.length),
      // For bindings that a dispatch does not use: read only ones, and others.
      engine.buffer(BLOCK * BINDINGS),
      engine.buffer(BLOCK * BINDINGS),
    ];
    device.queue.writeBuffer(engine.shared[0], 0, parameters);
    device.queue.writeBuffer(engine.shared[1], 0, states);
    const { kernels, pipelines } = model.library;
    const modules = kernels.map(({ name, code, bindings }) => {
      const entries = bindings.map(([binding, type]) => {
        return { binding, visibility: GPU_COMPUTE, buffer: { type } };
      });
      const layout = device.createBindGroupLayout({ label: name, entries });
      const pipelineLayout = device.createPipelineLayout({ bindGroupLayouts: [layout] });
      return { layout, pipelineLayout, module: device.createShaderModule({ label: name, code }) };
    });
    engine.pipelines = await Promise.all(pipelines.map(async ({ kernel, constants }) => {
      const { layout, pipelineLayout, module } = modules[kernel];
      const pipeline = await device.createComputePipelineAsync({
        label: kernels[kernel].name,
        layout: pipelineLayout,
        compute: { module, entryPoint: 'main', constants },
      });
      return { layout, pipeline };
    }));
    engine.decode = model.decode && engine.plan(model.decode);
    const failures = [await device.popErrorScope(), await device.popErrorScope()];
    const failure = failures.find((each) => each);
    if (failure) {
      throw new Error(`The graphics adapter refused the model: ${failure.message}`);
    }
    return engine;
  }

  // A buffer of whole vec4s, filled with zeros.
  buffer(bytes) {
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    return this.device.createBuffer({ size, usage: STORAGE | COPY_SRC | COPY_DST });
  }

  // The buffers and bind groups of a recorded pass.
  plan({ buffers, steps, ports }) {
    const { device } = this;
    const all = [...this.shared, ...buffers.map((bytes) => this.buffer(bytes))];
    const blocks = new Uint32Array((steps.length * BLOCK) / 4);
    steps.forEach(({ params }, i) => blocks.set(params, (i * BLOCK) / 4));
    const uniforms = device.createBuffer({ size: blocks.byteLength, usage: UNIFORM | COPY_DST });
    device.queue.writeBuffer(uniforms, 0, blocks);
    const dispatches = steps.map(({ pipeline, groups, block, params, bind }, i) => {
      const entries = bind.map(([binding, number, offset, size]) => {
        return { binding, resource: { buffer: all[number], offset, size } };
      });
      const resource = { buffer: uniforms, offset: i * BLOCK, size: 4 * params.length };
      entries.push({ binding: block, resource });
      const of = this.pipelines[pipeline];
      const bindGroup = device.createBindGroup({ layout: of.layout, entries });
      return { pipeline: of.pipeline, bindGroup, groups };
    });
    const place = ([name, { buffer, offset, len }]) => {
      return [name, { buffer: all[buffer], offset, len, staging: null }];
    };
    return { dispatches, ports: Object.fromEntries(Object.entries(ports).map(place)) };
  }

  // Writes `inputs` (Float32Array by name), runs a pass and returns the wanted outputs by name.
  async run({ dispatches, ports }, inputs, outputs) {
    const { device } = this;
    for (const [name, values] of Object.entries(inputs)) {
      if (values.length !== ports[name].len) {
        throw new Error(`${name} has ${values.length} values instead of ${ports[name].len}`);
      }
      device.queue.writeBuffer(ports[name].buffer, ports[name].offset, values);
    }
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, bindGroup, groups } of dispatches) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(...groups);
    }
    pass.end();
    device.pushErrorScope('validation');
    const wanted = outputs.map((name) => {
      const port = ports[name];
      const size = 4 * port.len;
      port.staging ??= device.createBuffer({ size, usage: MAP_READ | COPY_DST });
      encoder.copyBufferToBuffer(port.buffer, port.offset, port.staging, 0, size);
      return [name, port.staging];
    });
    device.queue.submit([encoder.finish()]);
    const failure = await device.popErrorScope();
    if (failure) {
      throw new Error(failure.message);
    }
    const results = {};
    for (const [name, staging] of wanted) {
      await staging.mapAsync(READ);
      results[name] = new Float32Array(staging.getMappedRange().slice(0));
      staging.unmap();
    }
    return results;
  }
}

// The numbers of GPUShaderStage, GPUBufferUsage and GPUMapMode in the standard. Node.js has no such
// names.
const GPU_COMPUTE = 4;
const READ = 1;
const MAP_READ = 0x1;
const COPY_SRC = 0x4;
const COPY_DST = 0x8;
const UNIFORM = 0x40;
const STORAGE = 0x80;
