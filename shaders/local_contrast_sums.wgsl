//!include grid fours map
// sums[i] = (sum of x, sum of x^2) for pixel i: over its channels and those of the pixels up to
//   `reach` rows above and below it, inside the map.
// Layouts: x (N,H,W,C), sums (N,H,W,2).
// Invocation: one pixel.
// Grid: N * H * W invocations of 64.
// Twin: LocalContrast in src/ops/local_contrast.rs.
struct Params {
    len: u32,
    h: u32,
    w: u32,
    c: u32,
    reach: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec2<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.len / p.c {
        return;
    }
    let column = i % p.w;
    let row = i / p.w % p.h;
    let sample = i / (p.w * p.h);
    let first = row - min(row, p.reach);
    let last = min(row + p.reach, p.h - 1u);
    var sum = vec2<f32>(0.0);
    for (var y = first; y <= last; y++) {
        let at = ((sample * p.h + y) * p.w + column) * p.c;
        for (var c = 0u; c < p.c; c++) {
            let value = f32(x[at + c]);
            sum += vec2<f32>(value, value * value);
        }
    }
    sums[i] = sum;
}
