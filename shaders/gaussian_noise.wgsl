//!include grid fours map rng step log normal
// y = x + level[n] * e, level[n] = low + (high - low) * u. e is standard normal from the random
//   word of the element's NCHW index in the whole batch, u uniform from the word of the sample.
//   This dispatch may hold a part of the batch that begins with sample step.first_sample.
// Layouts: x and y (N,H,W,C), level (N).
// Invocation: four consecutive elements. Elements past the end fall in the buffer's padding. The
//   invocation that holds a sample's first element stores its level.
// Grid: ceil(len / 4) invocations.
// Twin: GaussianNoise in src/ops/corrupt/cpu.rs.
struct Params {
    vectors: u32,
    len: u32,
    c: u32,
    area: u32,
    low: f32,
    high: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> y: array<Map4>;
@group(0) @binding(3) var<storage, read_write> level: array<f32>;

// The noise level of a sample, from the stream "leve" (ASCII). f32 holds 24 bits exactly, so the
// uniform number has 24 bits.
fn level_of(sample: u32) -> f32 {
    let word = random_word(sample, step.step, 0x6c657665u, step.seed_lo, step.seed_hi);
    return p.low + (p.high - p.low) * (f32(word >> 8u) / 16777216.0);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.vectors {
        return;
    }
    var c = (i * 4u) % p.c;
    let pixel = (i * 4u) / p.c;
    var n = pixel / p.area;
    var hw = pixel % p.area;
    var noise: vec4<f32>;
    for (var lane = 0u; lane < 4u; lane++) {
        let sigma = level_of(step.first_sample + n);
        let index = ((step.first_sample + n) * p.c + c) * p.area + hw;
        // The stream number is "nois" in ASCII.
        let word = random_word(index, step.step, 0x6e6f6973u, step.seed_lo, step.seed_hi);
        // Each value moves one component down until the fourth is there. FXC refuses noise[lane].
        noise = vec4<f32>(noise.yzw, sigma * normal_of(word));
        if c == 0u && hw == 0u && 4u * i + lane < p.len {
            level[n] = sigma;
        }
        // Advance to the next element in memory.
        c++;
        if c == p.c {
            c = 0u;
            hw++;
        }
        if hw == p.area {
            hw = 0u;
            n++;
        }
    }
    y[i] = to_map4(map4(x[i]) + noise);
}
