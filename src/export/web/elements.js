'use strict';
// Elements, pictures and files of the page.

// Sides of images are at most this long: browsers limit canvases, and tiles take time.
const MAX_SIDE = 4096;

// An element with attributes, or listeners if the value is a function, and children.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') {
      made.addEventListener(name, value);
    } else {
      made.setAttribute(name, value);
    }
  }
  made.append(...children);
  return made;
}

// A slider with a label and its value. `changed` is called with the number.
function slider(text, { min, max, step, value }, changed) {
  const shown = element('output', {}, String(value));
  const input = element('input', {
    type: 'range', min, max, step, value, 'aria-label': text,
    input: () => {
      shown.value = input.value;
      changed(Number(input.value));
    },
  });
  const set = (number) => {
    input.value = number;
    shown.value = input.value;
  };
  return { label: element('label', {}, element('span', {}, text), input, shown), input, set };
}

// A canvas with a caption. Small pictures are shown enlarged.
function figure(caption) {
  const canvas = element('canvas', { width: 1, height: 1, role: 'img', 'aria-label': caption });
  const text = element('figcaption', {}, caption);
  return { figure: element('figure', {}, canvas, text), canvas, text };
}

// Draws an image (H,W,C from 0 to 1) on a canvas. Values outside are clipped.
function draw(canvas, { pixels, width, height, channels }) {
  canvas.width = width;
  canvas.height = height;
  const data = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    for (let c = 0; c < 3; c += 1) {
      data.data[4 * i + c] = Math.round(255 * pixels[i * channels + (channels === 3 ? c : 0)]);
    }
    data.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d').putImageData(data, 0, 0);
  // The pixels of small images are shown as squares of several pixels of the screen.
  const zoom = Math.max(1, Math.floor(256 / Math.max(width, height)));
  canvas.style.width = `${width * zoom}px`;
  canvas.classList.toggle('pixelated', zoom > 1);
}

// The pixels of a picture: gray if red, green and blue are equal everywhere.
function pixelsOf(source, width, height) {
  const shrink = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  // Transparent pixels are shown on white.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const area = canvas.width * canvas.height;
  let channels = 1;
  for (let i = 0; i < area && channels === 1; i += 1) {
    if (data[4 * i] !== data[4 * i + 1] || data[4 * i] !== data[4 * i + 2]) {
      channels = 3;
    }
  }
  const pixels = new Float32Array(area * channels);
  for (let i = 0; i < area; i += 1) {
    for (let c = 0; c < channels; c += 1) {
      pixels[i * channels + c] = data[4 * i + c] / 255;
    }
  }
  return { pixels, width: canvas.width, height: canvas.height, channels, shrunk: shrink < 1 };
}

// The image in a file, with the level of its compression if it is a JPEG file.
async function readFile(file) {
  const bitmap = await createImageBitmap(file);
  const level = levelOfFile(new Uint8Array(await file.arrayBuffer()));
  return { ...pixelsOf(bitmap, bitmap.width, bitmap.height), level };
}

async function readExample() {
  const picture = document.getElementById('example');
  await picture.decode();
  return pixelsOf(picture, picture.naturalWidth, picture.naturalHeight);
}

// A button that saves the picture of a canvas as a PNG file.
function saveButton(canvas, name) {
  return element('button', {
    type: 'button',
    click: () => canvas.toBlob((blob) => {
      const link = element('a', { href: URL.createObjectURL(blob), download: name });
      link.click();
      URL.revokeObjectURL(link.href);
    }),
  }, 'Save the result');
}

// Peak signal-to-noise ratio in dB of an image from 0 to 1.
function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 1) {
    sum += (Math.min(1, Math.max(0, a[i])) - b[i]) ** 2;
  }
  return 10 * Math.log10(a.length / sum);
}

// Numbers from 0 to before 1 that are the same on every page.
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

// White Gaussian noise by Box and Muller's method.
function withNoise({ pixels, ...rest }, sigma) {
  const next = random(1);
  const noisy = pixels.map((value) => {
    const radius = Math.sqrt(-2 * Math.log(1 - next()));
    return value + (sigma / 255) * radius * Math.cos(2 * Math.PI * next());
  });
  return { pixels: noisy, ...rest };
}
