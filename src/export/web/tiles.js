'use strict';
// Cuts images into overlapping tiles of one size and joins the results, as the program does.
// Positions are multiples of `align`, so that a model with strides sees every pixel in the same
// phase. The outer `halo` pixels of a tile are discarded, except at the border of the image.

// Width in pixels of the ramp between neighbouring tiles.
const RAMP = 8;

// The position from 0 to before `side` of a place outside of a side that is mirrored.
function mirrored(at, side) {
  const place = at % (2 * side);
  return place < side ? place : 2 * side - 1 - place;
}

// The tiles along one side of an image.
class TileAxis {
  constructor(length, tile, halo, align) {
    Object.assign(this, { length, tile });
    const last = Math.ceil((length - Math.min(length, tile)) / align);
    const step = Math.floor(Math.max(0, tile - 2 * halo - RAMP) / align);
    const gaps = Math.ceil(last / Math.max(1, step));
    this.starts = [];
    for (let i = 0; i <= gaps; i += 1) {
      this.starts.push(Math.floor((i * last) / Math.max(1, gaps)) * align);
    }
  }

  // The ramp between tiles i and i + 1 at a pixel falls from 1 to 0.
  ramp(i, at) {
    if (i + 1 === this.starts.length) {
      return 1;
    }
    const middle = (this.starts[i + 1] + this.starts[i] + this.tile) / 2;
    return Math.min(1, Math.max(0, (middle + RAMP / 2 - (at + 0.5)) / RAMP));
  }

  // Weight of tile i at a pixel. The weights of all tiles add up to 1.
  weight(i, at) {
    return this.ramp(i, at) - (i === 0 ? 0 : this.ramp(i - 1, at));
  }

  // Number of pixels of the image in tile i.
  covered(i) {
    return Math.min(this.starts[i] + this.tile, this.length) - this.starts[i];
  }

  // How often each pixel occurs in the image with the mirrored part that the last tile covers.
  multiplicity() {
    const counts = new Float64Array(this.length);
    const end = Math.max(this.length, this.starts[this.starts.length - 1] + this.tile);
    for (let at = 0; at < end; at += 1) {
      counts[mirrored(at, this.length)] += 1;
    }
    return counts;
  }
}

class Tiles {
  constructor(width, height, { width: tileWidth, height: tileHeight, halo, align }) {
    this.columns = new TileAxis(width, tileWidth, halo, align);
    this.rows = new TileAxis(height, tileHeight, halo, align);
  }

  get count() {
    return this.columns.starts.length * this.rows.starts.length;
  }

  // Row and column of a tile in the grid.
  place(number) {
    const across = this.columns.starts.length;
    return [Math.floor(number / across), number % across];
  }

  // The pixels (H,W,C) of a tile. Beyond the image they are mirrored.
  cut(number, pixels, channels) {
    const [row, column] = this.place(number);
    const { rows, columns } = this;
    const [height, width] = [rows.covered(row), columns.covered(column)];
    const tile = new Float32Array(rows.tile * columns.tile * channels);
    let to = 0;
    for (let y = 0; y < rows.tile; y += 1) {
      const line = (rows.starts[row] + mirrored(y, height)) * columns.length;
      for (let x = 0; x < columns.tile; x += 1) {
        const from = (line + columns.starts[column] + mirrored(x, width)) * channels;
        for (let c = 0; c < channels; c += 1, to += 1) {
          tile[to] = pixels[from + c];
        }
      }
    }
    return tile;
  }

  // Adds the result (H,W,C) of a tile to those of the others.
  add(number, result, channels, sum) {
    const [row, column] = this.place(number);
    const { rows, columns } = this;
    const across = [];
    for (let x = 0; x < columns.covered(column); x += 1) {
      across.push(columns.weight(column, columns.starts[column] + x));
    }
    for (let y = 0; y < rows.covered(row); y += 1) {
      const down = rows.weight(row, rows.starts[row] + y);
      if (down === 0) {
        continue;
      }
      for (let x = 0; x < across.length; x += 1) {
        // A discarded value can be infinite, which a weight of 0 would not remove.
        if (across[x] === 0) {
          continue;
        }
        const at = (rows.starts[row] + y) * columns.length + columns.starts[column] + x;
        const from = (y * columns.tile + x) * channels;
        for (let c = 0; c < channels; c += 1) {
          sum[at * channels + c] += down * across[x] * result[from + c];
        }
      }
    }
  }

  // Mean of each channel over the image with its mirrored part.
  mean(pixels, channels) {
    const [down, across] = [this.rows.multiplicity(), this.columns.multiplicity()];
    const sums = new Float64Array(channels);
    let total = 0;
    for (let y = 0; y < down.length; y += 1) {
      for (let x = 0; x < across.length; x += 1) {
        const weight = down[y] * across[x];
        const from = (y * across.length + x) * channels;
        total += weight;
        for (let c = 0; c < channels; c += 1) {
          sums[c] += weight * pixels[from + c];
        }
      }
    }
    return Float32Array.from(sums, (sum) => sum / total);
  }
}
