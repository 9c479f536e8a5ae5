//!include grid fours map lane
// y = (x - m) / sqrt(v + eps). m and v are the mean and the variance over the window around the
//   pixel, computed from the column sums that local_contrast_sums wrote.
// Layouts: x and y (N,H,W,C), sums (N,H,W,2).
// Invocation: four consecutive elements. Elements past the end are skipped.
// Grid: ceil(len / 4) invocations of 64.
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
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> sums: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<Map4>;

// (mean, 1 / standard deviation) over the window around pixel i.
fn window_moments(i: u32) -> vec2<f32> {
    let column = i % p.w;
    let row = i / p.w % p.h;
    let first = column - min(column, p.reach);
    let last = min(column + p.reach, p.w - 1u);
    var sum = vec2<f32>(0.0);
    for (var w = first; w <= last; w++) {
        sum += sums[i - column + w];
    }
    let rows = min(row + p.reach, p.h - 1u) - (row - min(row, p.reach)) + 1u;
    let mean = sum / f32(rows * (last - first + 1u) * p.c);
    return vec2<f32>(mean.x, 1.0 / sqrt(max(mean.y - mean.x * mean.x, 0.0) + p.eps));
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
    let values = map4(x[i]);
    var result = vec4<f32>(0.0);
    var pixel = 4u * i / p.c;
    var moments = window_moments(pixel);
    for (var lane = 0u; lane < 4u; lane++) {
        let element = 4u * i + lane;
        if element >= p.len {
            break;
        }
        if element / p.c != pixel {
            pixel = element / p.c;
            moments = window_moments(pixel);
        }
        let value = (values[lane] - moments.x) * moments.y;
        result = select(result, vec4<f32>(value), is_lane(lane));
    }
    y[i] = to_map4(result);
}
