//!include grid fours map log
// For each unit u, with m the mean of z[i, u] over the batch, r = m clamped to [1e-6, 1 - 1e-6] and
//   q = 1 - r:
//   partials[u] = (r - rho) / (r q), the slope of the term, 0 where the clamp is active
//   partials[units + u] = rho ln(rho / r) + (1 - rho) ln((1 - rho) / q), the term
// Layouts: z (n, units), partials (2 units).
// A column is a vec4 of units if their number is a multiple of 4, else one unit.
// Workgroup: 64 columns. Four invocations share a column, each of them sums every fourth sample.
// Grid: ceil(columns / 64) workgroups of 256.
// Twin: KlPenalty in src/ops/loss/cpu.rs.
struct Params {
    n: u32,
    units: u32,
    inverse_n: f32,
    rho: f32,
    rest: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<Map4>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

// The mean is kept this far from 0 and 1, where the term and its slope diverge.
const MARGIN: f32 = 1e-6;

var<workgroup> sums: array<vec4<f32>, 256>;

fn finish(u: u32, mean: f32) {
    // q comes from the mean, not from r, because 1 - 1e-6 rounds to 1 - 1.013e-6 in f32.
    let r = clamp(mean, MARGIN, 1.0 - MARGIN);
    let q = clamp(1.0 - mean, MARGIN, 1.0 - MARGIN);
    let d = r - p.rho;
    partials[u] = select(d / (r * q), 0.0, mean < MARGIN || 1.0 - mean < MARGIN);
    partials[p.units + u] = -p.rho * log_ratio(r, p.rho, d) - p.rest * log_ratio(q, p.rest, -d);
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let wide = p.units % 4u == 0u;
    let column = flat_workgroup(group, groups) * 64u + local % 64u;
    var sum = vec4<f32>(0.0);
    if wide && column < p.units / 4u {
        for (var i = local / 64u; i < p.n; i += 4u) {
            sum += map4(z[i * (p.units / 4u) + column]);
        }
    } else if !wide && column < p.units {
        for (var i = local / 64u; i < p.n; i += 4u) {
            let e = i * p.units + column;
            sum.x += map4(z[e / 4u])[e % 4u];
        }
    }
    sums[local] = sum;
    workgroupBarrier();
    if local < 64u {
        let total =
            (sums[local] + sums[local + 64u]) + (sums[local + 128u] + sums[local + 192u]);
        let mean = total * p.inverse_n;
        if wide && column < p.units / 4u {
            finish(4u * column, mean.x);
            finish(4u * column + 1u, mean.y);
            finish(4u * column + 2u, mean.z);
            finish(4u * column + 3u, mean.w);
        } else if !wide && column < p.units {
            finish(column, mean.x);
        }
    }
}
