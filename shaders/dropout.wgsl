//!include grid fours map rng step
// mask = 1 where random_word(i, step, layer, seed) >= threshold, else 0; y = scale * x * mask. i is
//   the element's NCHW index in the whole batch; this dispatch may hold a part of it that begins
//   with sample step.first_sample.
// Layouts: x, mask and y (N,H,W,C).
// Invocation: four consecutive elements. Elements past the end fall in the buffer's padding.
// Grid: ceil(len / 4) invocations.
// Twin: Dropout in src/ops/mask/cpu.rs.
struct Params {
    vectors: u32,
    c: u32,
    area: u32,
    threshold: u32,
    layer: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read_write> mask: array<Map4>;
@group(0) @binding(3) var<storage, read_write> y: array<Map4>;

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
    var words: vec4<u32>;
    for (var lane = 0u; lane < 4u; lane++) {
        let index = ((step.first_sample + n) * p.c + c) * p.area + hw;
        let word = random_word(index, step.step, p.layer, step.seed_lo, step.seed_hi);
        // Each word moves one component down until the fourth is there. FXC refuses words[lane].
        words = vec4<u32>(words.yzw, word);
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
    let kept = select(vec4<f32>(0.0), vec4<f32>(1.0), words >= vec4<u32>(p.threshold));
    mask[i] = to_map4(kept);
    y[i] = to_map4(p.scale * map4(x[i]) * kept);
}
