//!include grid fours map log
// Negative log-likelihood of a hurdle model, and its gradient by y. Unit u of row r fires if
//   t[r, u] > 0, and then has the strength v = t[r, units + u]. From the outputs l = y[r, u],
//   m = y[r, units + u] and s = y[r, 2 units + u], with s' = clamp(s, min_log_std, max_log_std):
//   silent: ln(1 + exp(l))
//   firing: ln(1 + exp(-l)) + s' + ((v - m) / exp(s'))^2 / 2 + pull (s - s')^2 / 2
//   dy = scale * gradient, scale = 1 / n
// Layouts: y and dy (n, 3, units); t (n, row). Only the first 2 * units elements of a row are read.
// Invocation: units i, i + stride, ... of all rows. The workgroup's unscaled sum goes to
//   partials[workgroup], and sum_partials adds those.
// Grid: at most 256 workgroups of 256.
// Twin: HurdleLoss in src/ops/hurdle.rs.
struct Params {
    count: u32,
    units: u32,
    row: u32,
    stride: u32,
    scale: f32,
    min_log_std: f32,
    max_log_std: f32,
    pull: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> t: array<Map>;
@group(0) @binding(3) var<storage, read_write> dy: array<Map>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var sum = 0.0;
    for (var i = flat_invocation(group, groups, local, 256u); i < p.count; i += p.stride) {
        let row = i / p.units;
        let unit = i % p.units;
        let base = 3u * row * p.units + unit;
        let fires = f32(t[row * p.row + unit]) > 0.0;
        let logit = f32(y[base]);
        // The loss of firing is ln(1 + exp(wrong)), its slope by `wrong` is `missed`, which is
        // 1 - the probability of what happened. The exponent is clamped at -87, below which exp
        // would be subnormal.
        let wrong = select(logit, -logit, fires);
        let small = exp(max(-abs(wrong), -87.0));
        let missed = select(small, 1.0, wrong >= 0.0) / (1.0 + small);
        var loss = max(wrong, 0.0) + log_ratio(1.0 + small, 1.0, small);
        var by_mean = 0.0;
        var by_log_std = 0.0;
        if fires {
            let log_std = f32(y[base + 2u * p.units]);
            let clamped = clamp(log_std, p.min_log_std, p.max_log_std);
            let excess = log_std - clamped;
            let inverse_std = exp(-clamped);
            let strength = f32(t[row * p.row + p.units + unit]);
            let error = (strength - f32(y[base + p.units])) * inverse_std;
            loss += clamped + 0.5 * error * error + 0.5 * p.pull * excess * excess;
            by_mean = -error * inverse_std;
            by_log_std = select(p.pull * excess, 1.0 - error * error, excess == 0.0);
        }
        dy[base] = Map(p.scale * select(missed, -missed, fires));
        dy[base + p.units] = Map(p.scale * by_mean);
        dy[base + 2u * p.units] = Map(p.scale * by_log_std);
        sum += loss;
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
    if local == 0u {
        partials[flat_workgroup(group, groups)] = sums[0];
    }
}
