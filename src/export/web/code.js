'use strict';
// The view of an autoencoder: an image, its strongest units with their atoms, and what the changed
// code decodes to.

// Number of units with a slider.
const UNITS = 12;

class CodeView {
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    this.before = figure('Image');
    this.after = figure('Decoded');
    this.gains = [];
    this.parts = element('div', { class: 'parts' });
    this.note = element('p', { class: 'soft' });
    const reset = element('button', {
      type: 'button',
      click: () => {
        this.sliders.forEach(({ set }) => set(1));
        this.gains.fill(1);
        changed();
      },
    }, 'Reset the units');
    this.controls = model.decode ? [reset, saveButton(this.after.canvas, 'decoded.png')] : [];
    this.content = [
      element('div', { class: 'pictures' }, this.before.figure, this.after.figure),
      element('h2', {}, 'Strongest units'),
      this.note,
      this.parts,
    ];
  }

  open(image) {
    this.image = image;
    this.encoded = null;
  }

  async run(runner) {
    if (!this.encoded) {
      this.encoded = await runner.encode(this.image);
      await this.showUnits(runner);
    }
    const { image, code, result } = this.encoded;
    draw(this.before.canvas, image);
    const changes = this.gains.some((gain) => gain !== 1);
    let decoded = result;
    if (changes) {
      const [units] = this.model.code;
      const changed = Float32Array.from(code);
      this.chosen.forEach((unit, i) => {
        for (let at = unit; at < changed.length; at += units) {
          changed[at] *= this.gains[i];
        }
      });
      decoded = await runner.decode(changed, this.encoded);
    }
    draw(this.after.canvas, decoded);
    const quality = `PSNR ${psnr(decoded.pixels, image.pixels).toFixed(1)} dB`;
    const what = changes ? 'Decoded from the changed code' : 'Decoded';
    this.after.text.textContent = `${what}: ${quality}`;
  }

  // Finds the units with the largest sums of magnitudes and shows them.
  async showUnits(runner) {
    const { code, image } = this.encoded;
    const { code: [units, ...sides], sizes: [[tileWidth, tileHeight]] } = this.model;
    // Positions beyond the image belong to its mirrored part.
    const height = Math.ceil((sides[0] * image.height) / tileHeight);
    const width = Math.ceil((sides[1] * image.width) / tileWidth);
    const strength = new Float64Array(units);
    let active = 0;
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        for (let unit = 0; unit < units; unit += 1) {
          const value = code[(y * sides[1] + x) * units + unit];
          strength[unit] += Math.abs(value);
          active += value === 0 ? 0 : 1;
        }
      }
    }
    const order = Array.from(strength.keys()).sort((a, b) => strength[b] - strength[a]);
    this.chosen = order.slice(0, UNITS).filter((unit) => strength[unit] > 0);
    this.gains = this.chosen.map(() => 1);
    const positions = height * width > 1 ? ` at ${height * width} positions` : '';
    const atoms = this.model.decode
      ? 'Beside each unit its atom: what the unit adds to the image, scaled on its own; gray is 0. '
        + 'A slider multiplies the unit.'
      : 'The decoder also reads layers before the code, so that the units cannot be changed alone.';
    this.note.textContent = `${active} of ${units * height * width} values of the code are not 0 `
      + `(${units} units${positions}). ${atoms}`;
    this.sliders = [];
    const parts = [];
    for (const [i, unit] of this.chosen.entries()) {
      const canvas = element('canvas', { role: 'img', 'aria-label': `atom of unit ${unit}` });
      if (this.model.decode) {
        drawAtom(canvas, await atomOf(runner, unit));
        const made = slider(`Unit ${unit}`, { min: 0, max: 3, step: 0.05, value: 1 }, (gain) => {
          this.gains[i] = gain;
          this.changed();
        });
        this.sliders.push(made);
        parts.push(element('div', { class: 'part' }, canvas, made.label));
      } else {
        const mean = (strength[unit] / (height * width)).toFixed(3);
        parts.push(element('div', { class: 'part' }, `Unit ${unit}: mean ${mean}`));
      }
    }
    this.parts.replaceChildren(...parts);
  }
}

// What a unit of value 1 in the middle of the code adds to the image: the part that is not 0.
async function atomOf(runner, unit) {
  const { code: [units, rows, columns], sizes: [[width, height]], channels } = runner.model;
  const empty = new Float32Array(units * rows * columns);
  const mean = new Float32Array(channels);
  runner.blank ??= await runner.decoded(empty, mean);
  empty[(Math.floor(rows / 2) * columns + Math.floor(columns / 2)) * units + unit] = 1;
  const pixels = (await runner.decoded(empty, mean)).map((value, i) => value - runner.blank[i]);
  const largest = pixels.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12);
  let [left, top, right, bottom] = [width, height, 0, 0];
  pixels.forEach((value, i) => {
    if (Math.abs(value) > 1e-3 * largest) {
      const place = Math.floor(i / channels);
      const [x, y] = [place % width, Math.floor(place / width)];
      [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
    }
  });
  const gray = pixels.map((value) => 0.5 + 0.5 * (value / largest));
  const whole = { pixels: gray, width, height, channels };
  return right > left ? crop(whole, left, top, right - left, bottom - top) : whole;
}

// Draws an atom 64 pixels large.
function drawAtom(canvas, atom) {
  draw(canvas, atom);
  canvas.style.width = `${(64 * atom.width) / Math.max(atom.width, atom.height)}px`;
  canvas.classList.add('pixelated');
}
