'use strict';
// The view that removes the artefacts of JPEG files.

class DeblockView {
  constructor(model, changed) {
    // Restored images of a model that is not conditioned on the compression do not depend on it.
    this.conditioned = model.conditioned;
    this.before = figure('Before');
    this.after = figure('After');
    const range = { min: 1, max: 100, step: 1, value: 15 };
    this.made = slider('Quality that the page compresses with (100: not)', range, () => {
      this.isStale = true;
      changed();
    });
    this.quality = slider('Quality of the compression', range, (value) => {
      this.level = levelOfQuality(value);
      changed();
    });
    const save = saveButton(this.after.canvas, 'deblocked.png');
    const quality = this.conditioned ? [this.quality.label] : [];
    this.controls = [...quality, this.made.label, save];
    this.content = [element('div', { class: 'pictures' }, this.before.figure, this.after.figure)];
  }

  open(image, isExample) {
    this.clean = image;
    this.made.set(isExample ? 15 : 100);
    this.isStale = true;
  }

  // Compresses the image if asked for, and reads how strongly it is compressed from the file.
  async compress() {
    this.isStale = false;
    const quality = Number(this.made.input.value);
    this.isMade = quality < 100;
    this.image = this.isMade ? await compressed(this.clean, quality) : this.clean;
    this.level = this.image.level ?? levelOfQuality(Number(this.quality.input.value));
    this.quality.set(qualityOfLevel(this.level));
    draw(this.before.canvas, this.image);
  }

  async run(runner) {
    if (this.isStale) {
      await this.compress();
    }
    const { image, level, isMade } = this;
    const result = await runner.run(image, { level });
    draw(this.after.canvas, result);
    const quality = ({ pixels, channels }) => {
      const same = channels === this.clean.channels && pixels.length === this.clean.pixels.length;
      return isMade && same ? `: PSNR ${psnr(pixels, this.clean.pixels).toFixed(1)} dB` : '';
    };
    let note = quality(image);
    if (image.shrunk) {
      note = `: shrunk to ${MAX_SIDE} pixels, which changes its artefacts`;
    } else if (image.level === null && this.conditioned) {
      note = ': not a JPEG file with a luma plane. Set the quality that it was compressed with.';
    }
    this.before.text.textContent = `Before${note}`;
    this.after.text.textContent = `After${quality(result)}`;
  }
}

// An image compressed as a JPEG file, with the level of its compression.
async function compressed(image, quality) {
  const canvas = document.createElement('canvas');
  draw(canvas, image);
  const blob = await new Promise((done) => {
    canvas.toBlob(done, 'image/jpeg', quality / 100);
  });
  return readFile(blob);
}
