'use strict';
// Functions on images: arrays of floats with interleaved channels (H,W,C), from 0 to 1. They
// compute the same as the program.

// Weights of red, green and blue in the brightness (BT.601) of gray images.
const LUMA = [0.299, 0.587, 0.114];

// Keys' cubic with a = -0.5.
function cubic(at) {
  const x = Math.abs(at);
  if (x <= 1) {
    return (1.5 * x - 2.5) * x * x + 1;
  }
  return x <= 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// For each output sample of a side the inputs and their weights. Beyond an edge the image is
// mirrored if `mirrors`, else left out.
function resizeWeights(from, to, mirrors) {
  const scale = to / from;
  const stretch = Math.min(1, scale);
  const radius = 2 / stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) / scale - 0.5;
    const inputs = [];
    let sum = 0;
    for (let j = Math.floor(centre - radius); j <= Math.ceil(centre + radius); j += 1) {
      const weight = cubic(stretch * (centre - j));
      if (weight !== 0 && (mirrors || (j >= 0 && j < from))) {
        const period = 2 * from;
        inputs.push([mirrored(((j % period) + period) % period, from), weight]);
        sum += weight;
      }
    }
    return inputs.map(([at, weight]) => [at, weight / sum]);
  });
}

// Resizes an image by bicubic interpolation: rows first if the height shrinks more.
function resize({ pixels, width, height, channels }, toWidth, toHeight, mirrors) {
  const rows = resizeWeights(height, toHeight, mirrors);
  const columns = resizeWeights(width, toWidth, mirrors);
  const vertically = (from, across) => {
    const out = new Float32Array(rows.length * across);
    rows.forEach((inputs, y) => {
      for (let x = 0; x < across; x += 1) {
        let sum = 0;
        for (const [at, weight] of inputs) {
          sum += weight * from[at * across + x];
        }
        out[y * across + x] = sum;
      }
    });
    return out;
  };
  const horizontally = (from, down) => {
    const out = new Float32Array(down * columns.length * channels);
    let to = 0;
    for (let y = 0; y < down; y += 1) {
      for (const inputs of columns) {
        for (let c = 0; c < channels; c += 1, to += 1) {
          let sum = 0;
          for (const [at, weight] of inputs) {
            sum += weight * from[(y * width + at) * channels + c];
          }
          out[to] = sum;
        }
      }
    }
    return out;
  };
  const out = toHeight / height <= toWidth / width
    ? horizontally(vertically(pixels, width * channels), toHeight)
    : vertically(horizontally(pixels, height), toWidth * channels);
  return { pixels: out, width: toWidth, height: toHeight, channels };
}

// The part of an image that begins at a column and a row.
function crop({ pixels, width, channels }, left, top, toWidth, toHeight) {
  const out = new Float32Array(toWidth * toHeight * channels);
  for (let y = 0; y < toHeight; y += 1) {
    const start = ((top + y) * width + left) * channels;
    out.set(pixels.subarray(start, start + toWidth * channels), y * toWidth * channels);
  }
  return { pixels: out, width: toWidth, height: toHeight, channels };
}

// Converts between gray and colour. Brightness is rounded to 8 bits, as the program does it.
function withChannels(image, channels) {
  const area = image.width * image.height;
  if (image.channels === channels) {
    return image;
  }
  const pixels = new Float32Array(area * channels);
  for (let i = 0; i < area; i += 1) {
    if (channels === 1) {
      const sum = LUMA.reduce((sum, weight, c) => sum + weight * image.pixels[3 * i + c], 0);
      pixels[i] = Math.round(255 * sum) / 255;
    } else {
      pixels.fill(image.pixels[i], i * channels, (i + 1) * channels);
    }
  }
  return { ...image, pixels, channels };
}

// Rows of an orthonormal transform of red, green and blue: luma and two chroma planes.
const OPPONENT = [
  [1 / Math.sqrt(3), 1 / Math.sqrt(3), 1 / Math.sqrt(3)],
  [1 / Math.sqrt(2), 0, -1 / Math.sqrt(2)],
  [1 / Math.sqrt(6), -2 / Math.sqrt(6), 1 / Math.sqrt(6)],
];

// The value of each plane for a sum of 0: the middle gray is 0.5 in all planes.
const OPPONENT_ZERO = OPPONENT.map((row) => 0.5 * (1 - row[0] - row[1] - row[2]));

// Luma and chroma planes of colour pixels.
function toOpponent(pixels) {
  return pixels.map((_, i) => {
    const [first, plane] = [i - (i % 3), i % 3];
    const sum = OPPONENT[plane].reduce((sum, weight, c) => sum + weight * pixels[first + c], 0);
    return OPPONENT_ZERO[plane] + sum;
  });
}

// The colour pixels of luma and chroma planes.
function fromOpponent(planes) {
  return planes.map((_, i) => {
    const [first, channel] = [i - (i % 3), i % 3];
    const part = (row, plane) => row[channel] * (planes[first + plane] - OPPONENT_ZERO[plane]);
    return OPPONENT.reduce((sum, row, plane) => sum + part(row, plane), 0);
  });
}

// Luma and chroma planes of colour pixels, as in JPEG files.
function toJpeg(pixels) {
  return pixels.map((_, i) => {
    const pixel = pixels.subarray(i - (i % 3), i - (i % 3) + 3);
    const luma = LUMA.reduce((sum, weight, c) => sum + weight * pixel[c], 0);
    const chroma = (c) => 0.5 + (0.5 * (pixel[c] - luma)) / (1 - LUMA[c]);
    return [luma, chroma(2), chroma(0)][i % 3];
  });
}

// The colour pixels of planes as in JPEG files.
function fromJpeg(planes) {
  return planes.map((_, i) => {
    const [luma, ...chroma] = planes.subarray(i - (i % 3), i - (i % 3) + 3);
    const colour = (value, c) => luma + 2 * (value - 0.5) * (1 - LUMA[c]);
    const [blue, red] = [colour(chroma[0], 2), colour(chroma[1], 0)];
    return [red, (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1], blue][i % 3];
  });
}

// Replaces missing values of a plane by a smooth guess: pull-push (Gortler et al. 1996). `known`
// has 1 for known values.
function fillPlane(values, known, width, height) {
  if (width * height === 1) {
    return known[0] ? values : new Float32Array(1);
  }
  const [w, h] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const [coarse, reached] = [new Float32Array(w * h), new Uint8Array(w * h)];
  for (let y = 0; y < h; y += 1) {
    for (let x = 0; x < w; x += 1) {
      let [sum, count] = [0, 0];
      for (const [row, column] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
        const at = (2 * y + row) * width + 2 * x + column;
        if (2 * y + row < height && 2 * x + column < width && known[at]) {
          sum += values[at];
          count += 1;
        }
      }
      coarse[y * w + x] = sum / Math.max(1, count);
      reached[y * w + x] = count > 0 ? 1 : 0;
    }
  }
  const smooth = fillPlane(coarse, reached, w, h);
  const other = (at, side) => {
    return at % 2 === 0 ? Math.max(0, at / 2 - 1) : Math.min((at + 1) / 2, side - 1);
  };
  const filled = Float32Array.from(values);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (!known[y * width + x]) {
        const [near, far] = [Math.floor(y / 2) * w, other(y, h) * w];
        const [left, right] = [Math.floor(x / 2), other(x, w)];
        const row = (start) => 0.75 * smooth[start + left] + 0.25 * smooth[start + right];
        filled[y * width + x] = 0.75 * row(near) + 0.25 * row(far);
      }
    }
  }
  return filled;
}

// Fills the missing pixels of an image. `missing` has 1 for each of them.
function fill({ pixels, width, height, channels }, missing) {
  const known = missing.map((one) => 1 - one);
  const out = Float32Array.from(pixels);
  for (let c = 0; c < channels; c += 1) {
    const plane = Float32Array.from(known, (_, i) => pixels[i * channels + c]);
    fillPlane(plane, known, width, height).forEach((value, i) => {
      out[i * channels + c] = value;
    });
  }
  return { pixels: out, width, height, channels };
}
