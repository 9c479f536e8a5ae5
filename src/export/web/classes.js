'use strict';
// Views of a classifier and of a segmenter.

// Number of classes whose probabilities are shown.
const CLASSES = 10;

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

class ClassifyView {
  constructor(model) {
    this.model = model;
    this.before = figure('Image');
    this.bars = element('div', { class: 'bars' });
    this.controls = [];
    this.content = [element('div', { class: 'pictures' }, this.before.figure, this.bars)];
  }

  open(image) {
    this.image = image;
    draw(this.before.canvas, image);
  }

  async run(runner) {
    const { pixels } = await runner.run(this.image);
    const seen = runner.prepared(this.image);
    draw(this.before.canvas, seen);
    this.before.text.textContent = `The image as the model sees it: ${seen.width}×${seen.height}`;
    const order = Array.from(pixels.keys()).sort((a, b) => pixels[b] - pixels[a]);
    const rows = order.slice(0, CLASSES).map((number) => {
      const bar = element('div', { class: 'bar' });
      bar.style.width = `${100 * pixels[number]}%`;
      const share = element('div', { class: 'n' }, percent(pixels[number]));
      return [element('div', {}, this.model.classes[number]), element('div', {}, bar), share];
    });
    this.bars.replaceChildren(...rows.flat());
  }
}

class SegmentView {
  constructor(model, changed) {
    this.model = model;
    this.opacity = 0.5;
    this.before = figure('Image');
    this.after = figure('Classes');
    this.key = element('ul', { class: 'key' });
    const range = { min: 0, max: 1, step: 0.05, value: 0.5 };
    const opacity = slider('Opacity of the classes', range, (value) => {
      this.opacity = value;
      this.show();
    });
    this.controls = [opacity.label, saveButton(this.after.canvas, 'classes.png')];
    this.content = [
      element('div', { class: 'pictures' }, this.before.figure, this.after.figure),
      this.key,
    ];
  }

  open(image) {
    this.image = image;
    this.best = null;
    draw(this.before.canvas, image);
  }

  async run(runner) {
    const result = await runner.run(this.image);
    const { classes } = this.model;
    this.seen = withChannels(runner.fitted(this.image), 3);
    this.best = new Uint16Array(result.width * result.height);
    const counts = new Float64Array(classes.length);
    this.best.forEach((_, i) => {
      const of = result.pixels.subarray(i * classes.length, (i + 1) * classes.length);
      const best = of.reduce((best, value, number) => (value > of[best] ? number : best), 0);
      this.best[i] = best;
      counts[best] += 1;
    });
    const found = Array.from(counts.keys()).filter((number) => counts[number] > 0);
    const keys = found.sort((a, b) => counts[b] - counts[a]).map((number) => {
      const swatch = element('i');
      swatch.style.background = `rgb(${this.model.colours[number].join(' ')})`;
      const share = percent(counts[number] / this.best.length);
      return element('li', {}, swatch, `${classes[number]} ${share}`);
    });
    this.key.replaceChildren(...keys);
    this.show();
  }

  show() {
    if (this.best) {
      const pixels = this.seen.pixels.map((value, i) => {
        const colour = this.model.colours[this.best[Math.floor(i / 3)]][i % 3] / 255;
        return (1 - this.opacity) * value + this.opacity * colour;
      });
      draw(this.after.canvas, { ...this.seen, pixels });
    }
  }
}
