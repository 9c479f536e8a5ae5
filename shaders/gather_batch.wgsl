//!include grid fours map lane rng step
// x[i] = a crop of image order[cursor + i]: (sample - offset[c]) / divisor[c].
// The crop is centred, or at a random place with crop = 1. flip_x and flip_y mirror it and turn
//   transposes it first (x is square then), each with probability 1/2 by the top bit of a random
//   word. Word j of sample i is random_word(cursor + i, step, 0x6a7468 + j, seed).
// A stored float that is not finite becomes the mark of a missing value, the bits 0xff7fffff.
// Layouts: x (N,H,W,C); bytes: images (H,W,C) one after the other, little-endian samples of the
//   type `sample` (0: 8-bit, 1: 16-bit integer, 2: 16-bit float, 3: 32-bit float); table
//   (images, 3): offset in samples, height, width; order: image numbers; scales (C, 2): offset and
//   divisor as bits of floats.
// Invocation: one vec4 of x.
// Grid: ceil(len / 4) invocations.
// Precondition: every image is at least as large as the crop.
// Twin: GatherBatch in src/ops/data/cpu.rs.
struct Params {
    len: u32,
    height: u32,
    width: u32,
    channels: u32,
    crop: u32,
    flip_x: u32,
    flip_y: u32,
    turn: u32,
    sample: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> bytes: array<u32>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;
@group(0) @binding(5) var<storage, read_write> x: array<Map4>;

// The source of a crop: `base` is the offset of its top left corner in samples, `stride` the
// samples of an image row.
struct Crop {
    base: u32,
    stride: u32,
    mirror_x: bool,
    mirror_y: bool,
    transposed: bool,
}

// The value of a 16-bit float by its bits. The built-in unpack2x16float is not portable.
fn half_value(bits: u32) -> f32 {
    let sign = (bits & 0x8000u) << 16u;
    let exponent = (bits >> 10u) & 31u;
    let mantissa = bits & 1023u;
    if exponent == 0u {
        // 2^-24: subnormal numbers are multiples of it.
        let value = f32(mantissa) * 5.9604645e-8;
        return select(value, -value, sign != 0u);
    }
        if exponent == 31u {
        return missing();
    }
    return bitcast<f32>(sign | ((exponent + 112u) << 23u) | (mantissa << 13u));
}

// The mark of a missing value, the lowest finite float.
fn missing() -> f32 {
    return bitcast<f32>(0xff7fffffu);
}

// Stored sample number `at`.
fn stored_sample(at: u32) -> f32 {
    switch p.sample {
        case 0u: {
            return f32((bytes[at / 4u] >> (8u * (at % 4u))) & 255u);
        }
        case 1u: {
            return f32((bytes[at / 2u] >> (16u * (at % 2u))) & 65535u);
        }
        case 2u: {
            return half_value((bytes[at / 2u] >> (16u * (at % 2u))) & 65535u);
        }
        default: {
                        let bits = bytes[at];
            let is_finite = (bits & 0x7f800000u) != 0x7f800000u;
            return select(missing(), bitcast<f32>(bits), is_finite);
        }
    }
}

// Random word j of a sample.
fn sample_word(index: u32, j: u32) -> u32 {
    return random_word(index, step.step, 0x6a7468u + j, step.seed_lo, step.seed_hi);
}

fn crop_of(sample: u32) -> Crop {
    let index = step.cursor + sample;
    let entry = 3u * order[index];
    let spare_y = table[entry + 1u] - p.height;
    let spare_x = table[entry + 2u] - p.width;
    var top = spare_y / 2u;
    var left = spare_x / 2u;
    if p.crop == 1u {
        top = sample_word(index, 0u) % (spare_y + 1u);
        left = sample_word(index, 1u) % (spare_x + 1u);
    }
    var crop: Crop;
    crop.stride = table[entry + 2u] * p.channels;
    crop.base = table[entry] + top * crop.stride + left * p.channels;
    crop.mirror_x = false;
    crop.mirror_y = false;
    crop.transposed = false;
    if p.flip_x == 1u {
        crop.mirror_x = sample_word(index, 2u) >= 0x80000000u;
    }
    if p.flip_y == 1u {
        crop.mirror_y = sample_word(index, 3u) >= 0x80000000u;
    }
    if p.turn == 1u {
        crop.transposed = sample_word(index, 4u) >= 0x80000000u;
    }
    return crop;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if 4u * i >= p.len {
        return;
    }
    let pixel = 4u * i / p.channels;
    var c = 4u * i % p.channels;
    var column = pixel % p.width;
    var row = pixel / p.width % p.height;
    var sample = pixel / p.width / p.height;
    var crop = crop_of(sample);
    var values = vec4<f32>(0.0);
    for (var k = 0u; k < 4u; k++) {
        let line = select(row, column, crop.transposed);
        let place = select(column, row, crop.transposed);
        let from_row = select(line, p.height - 1u - line, crop.mirror_y);
        let from_column = select(place, p.width - 1u - place, crop.mirror_x);
        let at = crop.base + from_row * crop.stride + from_column * p.channels + c;
        let offset = bitcast<f32>(scales[2u * c]);
        let divisor = bitcast<f32>(scales[2u * c + 1u]);
                let stored = stored_sample(at);
        let is_known = bitcast<u32>(stored) != 0xff7fffffu;
        let value = select(stored, (stored - offset) / divisor, is_known);
        values = select(values, vec4<f32>(value), is_lane(k));
        if 4u * i + k + 1u >= p.len {
            break;
        }
        // Advance to the next element in memory: channel, then column, row, sample.
        c++;
        if c == p.channels {
            c = 0u;
            column++;
        }
        if column == p.width {
            column = 0u;
            row++;
        }
        if row == p.height {
            row = 0u;
            sample++;
            crop = crop_of(sample);
        }
    }
    x[i] = to_map4(values);
}
