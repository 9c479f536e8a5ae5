//!include grid fours map rng step
// y = x shrunk along one axis by the sample's scale and enlarged again, both with Keys' cubic
//   kernel. x is viewed as (outer, side, inner), inner contiguous, and resampled along `side`.
//   shrunk[j] = sum over i of cubic((centre_j - i) / scale) x[i] / scale, centre_j = (j + 1/2)
//     scale - 1/2
//   y[i] = sum over four j of cubic(centre_i - j) shrunk[j], centre_i = (i + 1/2) / scale - 1/2
//   level[n] = (scale - 1) / 10
// `scales` packs `count` scales of four bits each. A random word of the sample selects one.
// Layouts: x and y (N,H,W,C), level (N).
// Invocation: one element of y.
// Grid: ceil(len / 64) workgroups of 64.
// Precondition: every scale divides `side`, and is at most `side`.
// Twin: BicubicDownUp in src/ops/bicubic/cpu.rs.
struct Params {
    len: u32,
    side: u32,
    inner: u32,
    sample: u32,
    scales: u32,
    count: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> y: array<Map>;
@group(0) @binding(3) var<storage, read_write> level: array<f32>;

// Keys' cubic convolution kernel with a = -1/2.
fn cubic(at: f32) -> f32 {
    let t = abs(at);
    if t <= 1.0 {
        return (1.5 * t - 2.5) * t * t + 1.0;
    }
    if t <= 2.0 {
        return ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0;
    }
    return 0.0;
}

// Mirrors an index from -2 side on into 0 .. side at both ends. The edge element appears twice.
// OpenGL leaves the remainder of negative numbers undefined.
fn mirrored(at: i32, side: i32) -> i32 {
    let around = i32(u32(at + 2 * side) % u32(2 * side));
    return min(around, 2 * side - 1 - around);
}

// Element j of the shrunk line. `base` is the index of the line's first element in x.
fn shrunk(j: i32, scale: i32, base: u32) -> f32 {
    let side = i32(p.side);
    let centre = (f32(j) + 0.5) * f32(scale) - 0.5;
    let first = i32(ceil(centre)) - 2 * scale;
    var sum = 0.0;
    for (var tap = 0; tap <= 4 * scale; tap++) {
        let at = first + tap;
        let weight = cubic((centre - f32(at)) / f32(scale));
        sum += weight * f32(x[base + u32(mirrored(at, side)) * p.inner]);
    }
    return sum / f32(scale);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let element = flat_invocation(group, groups, local, 64u);
    if element >= p.len {
        return;
    }
    let n = element / p.sample;
    // The stream number is "scal" in ASCII.
    let index = step.first_sample + n;
    let word = random_word(index, step.step, 0x7363616cu, step.seed_lo, step.seed_hi);
    let scale = i32((p.scales >> (4u * random_below(word, p.count))) & 15u);
    if element == n * p.sample {
        level[n] = 0.1 * f32(scale - 1);
    }
    let i = i32(element / p.inner % p.side);
    let base = element / (p.inner * p.side) * p.inner * p.side + element % p.inner;
    let small = i32(p.side) / scale;
    let centre = (f32(i) + 0.5) / f32(scale) - 0.5;
    let first = i32(floor(centre)) - 1;
    var sum = 0.0;
    for (var tap = 0; tap < 4; tap++) {
        let j = first + tap;
        sum += cubic(centre - f32(j)) * shrunk(mirrored(j, small), scale, base);
    }
    y[element] = Map(sum);
}
