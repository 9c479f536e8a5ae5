//!include grid fours map step
// dz[i, u] += scale * sparsity_scale * partials[u], scale = beta / n. kl_penalty_means has written
//   the slopes partials[u] = (r - rho) / (r (1 - r)) at the mean r.
// Layouts: dz (n, units), partials (units slopes, then units terms).
// Invocation: one vec4 of dz, whose lanes k are units (4i + k) mod units.
// Grid: ceil(n * units / 4) invocations.
// Twin: KlPenalty in src/ops/loss/cpu.rs.
struct Params {
    vectors: u32,
    units: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dz: array<Map4>;

fn slope_of(element: u32) -> f32 {
    let u = element % p.units;
    return partials[u / 4u][u % 4u];
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
    var slope: vec4<f32>;
    if p.units % 4u == 0u {
        slope = partials[i % (p.units / 4u)];
    } else {
        slope = vec4<f32>(
            slope_of(4u * i),
            slope_of(4u * i + 1u),
            slope_of(4u * i + 2u),
            slope_of(4u * i + 3u),
        );
    }
    dz[i] = to_map4(map4(dz[i]) + p.scale * step.sparsity_scale * slope);
}
