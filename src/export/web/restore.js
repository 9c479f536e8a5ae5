'use strict';
// Views that restore images: noise, missing pixels, enlarging.

class DenoiseView {
  constructor(model, changed) {
    // Restored images of a model that is not conditioned on the noise level do not depend on it.
    this.conditioned = model.conditioned;
    [, this.max] = model.sigma ?? [0, 75];
    this.added = 25;
    this.sigma = 25;
    this.before = figure('Before');
    this.after = figure('After');
    const range = { min: 0, max: this.max, step: 0.5, value: 25 };
    this.noise = slider('Noise added by the page (σ)', range, (value) => {
      this.added = value;
      if (this.isExample) {
        this.sigma = value;
        this.level.set(value);
      }
      this.degrade();
      changed();
    });
    this.level = slider('Noise to remove (σ)', range, (value) => {
      this.sigma = value;
      changed();
    });
    const save = saveButton(this.after.canvas, 'denoised.png');
    const level = this.conditioned ? [this.level.label] : [];
    this.controls = [...level, this.noise.label, save];
    this.content = [element('div', { class: 'pictures' }, this.before.figure, this.after.figure)];
  }

  open(image, isExample) {
    this.clean = image;
    this.isExample = isExample;
    this.added = isExample ? Math.min(25, this.max) : 0;
    this.noise.set(this.added);
    this.sigma = Math.min(25, this.max);
    this.level.set(this.sigma);
    this.degrade();
  }

  degrade() {
    this.image = this.added > 0 ? withNoise(this.clean, this.added) : this.clean;
    draw(this.before.canvas, this.image);
  }

  async run(runner) {
    const result = await runner.run(this.image, { sigma: this.sigma });
    draw(this.after.canvas, result);
    if (this.added > 0 && result.width === this.clean.width) {
      const quality = ({ pixels }) => psnr(pixels, this.clean.pixels);
      const [before, after] = [this.image, result].map(quality);
      this.before.text.textContent = `Before: PSNR ${before.toFixed(1)} dB`;
      this.after.text.textContent = `After: PSNR ${after.toFixed(1)} dB`;
    } else {
      this.before.text.textContent = 'Before';
      this.after.text.textContent = 'After';
    }
  }
}

class InpaintView {
  constructor(model, changed) {
    this.changed = changed;
    this.before = figure('Before: missing pixels are magenta. Paint to mark more.');
    this.after = figure('After');
    this.before.canvas.classList.add('paint');
    this.brush = slider('Brush', { min: 1, max: 40, step: 1, value: 6 }, () => {});
    const button = (text, mark) => {
      const click = () => {
        mark();
        this.show();
        changed();
      };
      return element('button', { type: 'button', click }, text);
    };
    this.controls = [
      this.brush.label,
      button('Half of the pixels', () => this.scatter()),
      button('Scratches', () => this.scratch()),
      button('Clear', () => this.missing.fill(0)),
      saveButton(this.after.canvas, 'filled.png'),
    ];
    this.content = [element('div', { class: 'pictures' }, this.before.figure, this.after.figure)];
    const paint = (event) => {
      if (event.buttons > 0) {
        const box = this.before.canvas.getBoundingClientRect();
        const zoom = this.image.width / box.width;
        this.dot((event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom);
        this.show();
        changed();
      }
    };
    this.before.canvas.addEventListener('pointerdown', paint);
    this.before.canvas.addEventListener('pointermove', paint);
  }

  open(image, isExample, runner) {
    this.image = runner.fitted(image);
    this.missing = new Uint8Array(this.image.width * this.image.height);
    if (isExample) {
      this.scratch();
    }
    this.show();
  }

  dot(x, y) {
    const radius = Number(this.brush.input.value);
    const { width, height } = this.image;
    const range = (middle, side) => {
      return [Math.max(0, Math.ceil(middle - radius)), Math.min(side - 1, middle + radius)];
    };
    const [[top, bottom], [left, right]] = [range(y, height), range(x, width)];
    for (let row = top; row <= bottom; row += 1) {
      for (let at = left; at <= right; at += 1) {
        if ((at - x) ** 2 + (row - y) ** 2 <= radius * radius) {
          this.missing[row * width + at] = 1;
        }
      }
    }
  }

  scatter() {
    const next = random(2);
    this.missing.forEach((_, i) => {
      this.missing[i] = next() < 0.5 ? 1 : this.missing[i];
    });
  }

  scratch() {
    const next = random(3);
    const { width, height } = this.image;
    for (let line = 0; line < 7; line += 1) {
      const [x, y, slope] = [next() * width, next() * height, 2 * next() - 1];
      for (let t = 0; t < width; t += 1) {
        const row = Math.round(y + slope * (t - x));
        for (let thick = 0; thick < 3; thick += 1) {
          if (row + thick >= 0 && row + thick < height) {
            this.missing[(row + thick) * width + t] = 1;
          }
        }
      }
    }
  }

  // Draws the image with missing pixels in magenta.
  show() {
    const colour = withChannels(this.image, 3);
    const pixels = colour.pixels.map((value, i) => {
      return this.missing[Math.floor(i / 3)] ? [1, 0, 1][i % 3] : value;
    });
    draw(this.before.canvas, { ...colour, pixels });
  }

  async run(runner) {
    const missing = Uint8Array.from(this.missing);
    const gaps = missing.reduce((sum, one) => sum + one, 0);
    // Nothing is left to fill a whole image from.
    const unchanged = gaps === 0 || gaps === missing.length;
    const result = unchanged ? this.image : await runner.run(this.image, { missing });
    draw(this.after.canvas, result);
    const share = ((100 * gaps) / missing.length).toFixed(0);
    this.after.text.textContent = `After: ${share} % of the pixels were missing`;
  }
}

class UpscaleView {
  constructor(model, changed) {
    this.scale = model.scales[0];
    this.before = figure('Enlarged by bicubic interpolation');
    this.after = figure('Enlarged by the model');
    const options = model.scales.map((scale) => {
      return element('option', { value: scale }, `${scale} times`);
    });
    const select = element('select', {
      change: () => {
        this.scale = Number(select.value);
        changed();
      },
    }, ...options);
    const save = saveButton(this.after.canvas, 'enlarged.png');
    this.controls = [element('label', {}, 'Factor', select), save];
    this.content = [element('div', { class: 'pictures' }, this.before.figure, this.after.figure)];
  }

  open(image) {
    this.image = image;
  }

  async run(runner) {
    const { width, height } = this.image;
    const plain = resize(this.image, width * this.scale, height * this.scale, true);
    draw(this.before.canvas, plain);
    draw(this.after.canvas, await runner.run(this.image, { scale: this.scale }));
    this.before.text.textContent = `Bicubic interpolation, ${plain.width}×${plain.height}`;
  }
}
