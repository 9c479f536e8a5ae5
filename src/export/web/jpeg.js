'use strict';
// How strongly JPEG files are compressed: the standard deviation of the error if every coefficient
// of luma is rounded to the steps of its table, where white is 1.

// The steps at quality 50 (ITU-T T.81, annex K).
const LUMA_STEPS = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
  14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
  18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
  49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

function levelOfSteps(steps) {
  const squares = steps.reduce((sum, step) => sum + (step / 255) ** 2, 0);
  return Math.sqrt(squares / 12 / steps.length);
}

// The level of a quality from 1 to 100.
function levelOfQuality(quality) {
  const percent = quality < 50 ? Math.floor(5000 / quality) : 200 - 2 * quality;
  return levelOfSteps(LUMA_STEPS.map((step) => {
    return Math.min(255, Math.max(1, Math.floor((step * percent + 50) / 100)));
  }));
}

// The quality with the nearest level.
function qualityOfLevel(level) {
  const far = (quality) => Math.abs(levelOfQuality(quality) - level);
  const all = Array.from({ length: 100 }, (_, i) => i + 1);
  return all.reduce((best, quality) => (far(quality) < far(best) ? quality : best));
}

// The level of a JPEG file with a luma plane, or null.
function levelOfFile(bytes) {
  const short = (at) => 256 * bytes[at] + bytes[at + 1];
  const tables = [];
  let luma = null;
  let at = 2;
  while (short(0) === 0xffd8 && at + 4 <= bytes.length) {
    const [code, end] = [bytes[at + 1], at + 2 + short(at + 2)];
    if (bytes[at] !== 0xff) {
      return null;
    }
    if (code === 0xff) {
      // Fill bytes can precede a marker.
      at += 1;
      continue;
    }
    if (code === 0xdb) {
      // Precision and number of each table, then 64 steps of one or two bytes.
      for (let from = at + 4; from < end;) {
        const [size, number] = [1 + (bytes[from] >> 4), bytes[from] & 15];
        const start = from + 1;
        tables[number] = Array.from({ length: 64 }, (_, i) => {
          return size === 1 ? bytes[start + i] : short(start + 2 * i);
        });
        from = start + 64 * size;
      }
    } else if (code >= 0xc0 && code <= 0xc2) {
      // Precision, height and width; then the components: name, sampling, table.
      const count = bytes[at + 9];
      const names = [0, 1, 2].map((i) => bytes[at + 10 + 3 * i]);
      const isLuma = count === 1 || (count === 3 && String.fromCharCode(...names) !== 'RGB');
      luma = isLuma ? bytes[at + 12] : null;
    } else if (code === 0xda) {
      return tables[luma] ? levelOfSteps(tables[luma]) : null;
    }
    at = end;
  }
  return null;
}
