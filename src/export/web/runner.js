'use strict';
// Runs a model on images of any size. An image is { pixels, width, height, channels }.

function softmax(values, start, count) {
  let largest = -Infinity;
  for (let i = start; i < start + count; i += 1) {
    largest = Math.max(largest, values[i]);
  }
  let total = 0;
  for (let i = start; i < start + count; i += 1) {
    values[i] = Math.exp(values[i] - largest);
    total += values[i];
  }
  for (let i = start; i < start + count; i += 1) {
    values[i] /= total;
  }
}

class Runner {
  static async open(gpu, model, text) {
    const runner = new Runner();
    runner.model = model;
    runner.passes = [];
    const device = await openDevice(gpu);
    runner.lost = device.lost;
    runner.engine = await Engine.open(device, model, decodeValues(text));
    return runner;
  }

  // The result for an image: a restored image or a reconstruction, the probabilities of the
  // classes, or those of the classes of each pixel, as channels. `options` has the standard
  // deviation `sigma` of noise (0 to 255), the factor `scale`, the array `missing`, 1 for each
  // missing pixel, or the `quality` (1 to 100) or `level` of the compression of a JPEG file.
  run(image, options = {}) {
    return this.timed(() => this.compute(image, options));
  }

  // The result of some work, whose time in milliseconds is then `spent`.
  async timed(work) {
    const began = performance.now();
    const result = await work();
    this.spent = performance.now() - began;
    return result;
  }

  async compute(image, options) {
    switch (this.model.task) {
      case 'denoise': {
        const { sigma } = options;
        const [weak, strong] = this.model.weak;
        const removed = Math.min(1, Math.max(0, (sigma - weak) / (strong - weak)));
        const kept = this.model.conditioned ? 1 - removed * removed : 0;
        return this.restore(this.fitted(image), { level: sigma / 255 }, (before, after) => {
          return after.map((value, i) => kept * before[i] + (1 - kept) * value);
        });
      }
      case 'inpaint': {
        const { missing } = options;
        const { channels } = image;
        return this.restore(fill(image, missing), { missing }, (before, after) => {
          const each = before.length / missing.length;
          return after.map((value, i) => (missing[Math.floor(i / each)] ? value : before[i]));
        });
      }
      case 'upscale':
        return this.enlarge(image, options.scale);
      case 'dejpeg': {
        const level = options.level ?? levelOfQuality(options.quality);
        return this.restore(this.fitted(image), { level }, (before, after) => after);
      }
      case 'reconstruct':
        return this.pass(this.prepared(image), {}, (y) => y, this.model.channels);
      case 'segment':
        return this.pass(this.prepared(image), {}, (y) => {
          const count = this.model.classes.length;
          for (let start = 0; start < y.length; start += count) {
            softmax(y, start, count);
          }
          return y;
        }, this.model.classes.length);
      case 'classify': {
        const { width, height, pixels } = this.prepared(image);
        const mean = this.tiles(width, height).mean(pixels, this.model.channels);
        const { y } = await this.forward(0, pixels, { mean }, ['y']);
        softmax(y, 0, y.length);
        return { pixels: y, width: 1, height: 1, channels: y.length };
      }
      default:
        throw new Error(`unknown task ${this.model.task}`);
    }
  }

  // The tiles of an image, of the size with the least work.
  tiles(width, height) {
    const { sizes, halo, align } = this.model;
    const all = sizes.map(([tileWidth, tileHeight], number) => {
      const tiles = new Tiles(width, height, { width: tileWidth, height: tileHeight, halo, align });
      return Object.assign(tiles, { size: number, work: tiles.count * tileWidth * tileHeight });
    });
    return all.reduce((best, tiles) => (tiles.work < best.work ? tiles : best));
  }

  // The image at the size of the model, if that has only one.
  fitted(image) {
    const { fit, sizes: [[width, height]] } = this.model;
    const same = image.width === width && image.height === height;
    if (fit === 'resized' && !same) {
      const small = resize(image, width, height, false);
      small.pixels.forEach((value, i) => {
        small.pixels[i] = Math.round(255 * Math.min(1, Math.max(0, value))) / 255;
      });
      return small;
    }
    const shrink = Math.min(width / image.width, height / image.height);
    if (fit === 'mirrored' && shrink < 1) {
      const side = (length) => Math.max(1, Math.floor(length * shrink));
      return resize(image, side(image.width), side(image.height), false);
    }
    return image;
  }

  // The image at the size and in the channels of the model.
  prepared(image) {
    return this.fitted(withChannels(image, this.model.channels));
  }

  // Enlarges an image.
  async enlarge(image, scale) {
    const size = [image.width * scale, image.height * scale];
    const large = this.fitted(resize(image, ...size, true));
    const condition = { level: this.model.levels[this.model.scales.indexOf(scale)] };
    return this.restore(large, condition, (before, after) => after);
  }

  // Restores an image. `mix` returns the result from the image before and after. Of a colour image
  // a gray model restores each channel by itself, luma and chroma if it removes noise, and luma
  // alone if it removes the artefacts of JPEG. A colour model gets a gray image in each channel,
  // and the result is their mean.
  async restore(image, condition, mix) {
    const { channels, task } = this.model;
    const { width, height } = image;
    const like = (pixels) => ({ pixels, width, height, channels });
    const run = (pixels) => this.pass(like(pixels), condition, (y) => y, channels);
    if (image.channels === channels) {
      const { pixels } = await run(image.pixels);
      return { ...image, pixels: mix(image.pixels, pixels) };
    }
    const area = width * height;
    if (image.channels === 1) {
      const { pixels } = await run(withChannels(image, channels).pixels);
      const out = new Float32Array(area);
      pixels.forEach((value, i) => {
        out[Math.floor(i / channels)] += value / channels;
      });
      return { ...image, pixels: mix(image.pixels, out) };
    }
    const plane = (pixels, number) => {
      return Float32Array.from({ length: area }, (_, i) => pixels[i * image.channels + number]);
    };
    // Of a gray image with equal channels one is enough. It has the same noise in all of them.
    if (image.pixels.every((value, i) => value === image.pixels[i - (i % image.channels)])) {
      const { pixels } = await run(plane(image.pixels, 0));
      const out = image.pixels.map((_, i) => pixels[Math.floor(i / image.channels)]);
      return { ...image, pixels: mix(image.pixels, out) };
    }
    const whole = (pixels) => pixels;
    const [to, from, count] = {
      denoise: [toOpponent, fromOpponent, 3],
      dejpeg: [toJpeg, fromJpeg, 1],
    }[task] ?? [whole, whole, image.channels];
    const planes = to(image.pixels);
    const out = Float32Array.from(planes);
    for (let c = 0; c < count; c += 1) {
      const { pixels } = await run(plane(planes, c));
      pixels.forEach((value, i) => {
        out[i * image.channels + c] = value;
      });
    }
    return { ...image, pixels: mix(image.pixels, from(out)) };
  }

  // Runs the model on each tile of an image, and joins what `turn` makes of the results.
  async pass({ pixels, width, height }, { level, missing }, turn, channels) {
    const tiles = this.tiles(width, height);
    const mean = tiles.mean(pixels, this.model.channels);
    const sum = new Float32Array(width * height * channels);
    for (let number = 0; number < tiles.count; number += 1) {
      const tile = tiles.cut(number, pixels, this.model.channels);
      const gaps = missing && tiles.cut(number, missing, 1);
      const { y } = await this.forward(tiles.size, tile, { level, mean, gaps }, ['y']);
      tiles.add(number, turn(y), channels, sum);
    }
    return { pixels: sum, width, height, channels };
  }

  // Runs a recorded pass on one tile of its size. Its memory is allocated when it first runs.
  forward(size, x, { level = 0, mean, gaps }, outputs) {
    this.passes[size] ??= this.engine.plan(this.model.forward[size]);
    const forward = this.passes[size];
    const { channels } = this.model;
    const inputs = { x };
    if (forward.ports.level) {
      inputs.level = Float32Array.of(level);
    }
    if (forward.ports.mean) {
      inputs.mean = mean;
    }
    if (forward.ports.known) {
      inputs.known = x.map((_, i) => (gaps && gaps[Math.floor(i / channels)] ? 0 : 1));
    }
    return this.engine.run(forward, inputs, outputs);
  }

  // Code and reconstruction of an image, and what the decoder needs besides the code.
  encode(image) {
    return this.timed(() => this.encoded(image));
  }

  async encoded(image) {
    const small = this.prepared(image);
    const { width, height } = small;
    const tiles = this.tiles(width, height);
    const mean = tiles.mean(small.pixels, this.model.channels);
    const x = tiles.cut(0, small.pixels, this.model.channels);
    const { y, z } = await this.forward(tiles.size, x, { mean }, ['y', 'z']);
    return { image: small, tiles, mean, code: z, result: this.shown(y, tiles) };
  }

  // The image that a code decodes to, in the size of the encoded image.
  decode(code, { mean, tiles }) {
    return this.timed(async () => this.shown(await this.decoded(code, mean), tiles));
  }

  async decoded(code, mean) {
    const { decode } = this.engine;
    const inputs = decode.ports.mean ? { z: code, mean } : { z: code };
    const { y } = await this.engine.run(decode, inputs, ['y']);
    return y;
  }

  // The part of the result of a tile that shows the image.
  shown(y, tiles) {
    const { channels } = this.model;
    const [width, height] = [tiles.columns.length, tiles.rows.length];
    const pixels = new Float32Array(width * height * channels);
    tiles.add(0, y, channels, pixels);
    return { pixels, width, height, channels };
  }
}
