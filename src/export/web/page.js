'use strict';
// The page: opens the model, takes images, and runs the view of the task.

const VIEWS = {
  denoise: DenoiseView,
  inpaint: InpaintView,
  upscale: UpscaleView,
  dejpeg: DeblockView,
  reconstruct: CodeView,
  classify: ClassifyView,
  segment: SegmentView,
};

const BROWSERS = 'These browsers have WebGPU: Chrome and Edge from version 113 on (Android: 121), '
  + 'Safari from 26 on, and Firefox from 141 on (Windows) or 145 on (macOS). On Linux, Chrome can '
  + 'need chrome://flags/#enable-unsafe-webgpu. The page works as a file (file://); from a server '
  + 'it needs https.';

const app = document.getElementById('app');
const status = document.getElementById('status');
const model = JSON.parse(document.getElementById('model').textContent);

// A message that the page cannot go on.
function fail(error) {
  const text = element('p', {}, error.message);
  const where = error.message.includes('WebGPU') ? [element('p', {}, BROWSERS)] : [];
  app.replaceChildren(element('div', { class: 'card error', role: 'alert' }, text, ...where));
  status.textContent = '';
}

class Page {
  constructor(runner) {
    this.runner = runner;
    this.time = element('p', { class: 'time soft', role: 'status' });
    this.message = element('p', { class: 'card error', role: 'alert', hidden: '' });
    this.view = new VIEWS[model.task](model, () => this.run());
    const file = element('input', {
      type: 'file', accept: 'image/*', 'aria-label': 'Image',
      change: () => this.take(file.files),
    });
    const example = element('button', { type: 'button', click: () => this.example() }, 'Example');
    const drop = element('div', { class: 'sources' },
      element('label', {}, 'Image: ', file), 'or drop one here, paste one, or show the', example);
    this.listen(drop);
    app.replaceChildren(drop, this.message,
      element('div', { class: 'steps' }, ...this.view.controls), this.time, ...this.view.content);
  }

  // Takes images that are dropped anywhere or pasted.
  listen(drop) {
    document.addEventListener('dragover', (event) => {
      event.preventDefault();
      drop.classList.add('over');
    });
    document.addEventListener('dragleave', () => drop.classList.remove('over'));
    document.addEventListener('drop', (event) => {
      event.preventDefault();
      drop.classList.remove('over');
      this.take(event.dataTransfer.files);
    });
    document.addEventListener('paste', (event) => this.take(event.clipboardData.files));
  }

  async take([file]) {
    if (file) {
      try {
        await this.open(await readFile(file), false);
      } catch (error) {
        this.report(`${file.name}: not an image that this browser reads (${error.message}).`);
      }
    }
  }

  async example() {
    await this.open(await readExample(), true);
  }

  report(text) {
    this.message.textContent = text;
    this.message.hidden = text === '';
  }

  open(image, isExample) {
    this.report('');
    this.view.open(image, isExample, this.runner);
    return this.run();
  }

  // Runs the view. Changes while it runs are run together afterwards.
  async run() {
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    const slow = setTimeout(() => {
      this.time.textContent = 'Running…';
    }, 300);
    try {
      do {
        this.again = false;
        this.runner.spent = 0;
        await this.view.run(this.runner);
        clearTimeout(slow);
        this.time.textContent = `${this.runner.spent.toFixed(0)} ms for this image`;
      } while (this.again);
    } catch (error) {
      this.report(`The model could not run: ${error.message}`);
    } finally {
      clearTimeout(slow);
      this.running = false;
    }
  }
}

async function start() {
  status.textContent = 'Loading the model…';
  const values = document.getElementById('values').textContent;
  const runner = await Runner.open(navigator.gpu, model, values);
  status.textContent = '';
  runner.lost.then(({ message }) => {
    fail(new Error(`The graphics adapter was lost: ${message} Reload the page.`));
  });
  const page = new Page(runner);
  await page.example();
  return runner;
}

// For scripts: `await csae.ready`, then `await csae.run(pixels, { width, height, channels, … })`
// with the options of `Runner.run`, returns the result (H,W,C) as a Float32Array.
window.csae = {
  model,
  ready: start(),
  async run(pixels, { width, height, channels, ...options }) {
    const runner = await this.ready;
    return (await runner.run({ pixels, width, height, channels }, options)).pixels;
  },
};
window.csae.ready.catch(fail);
