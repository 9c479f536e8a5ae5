//!include grid fours map threshold
// y = sign(x) * max(|x| - t, 0). t is the threshold of the channel; with LEVELS it also depends on
//   the noise level of the sample (common/threshold.wgsl).
// Layouts: x and y (N,H,W,C); threshold and slope (C); level (N).
// Invocation: one vec4 of y.
// Grid: ceil(len / 4) invocations.
// Precondition: without LEVELS `slope` and `level` are not read, and any f32 buffer can be bound.
// Twin: SoftThresholdFwd in src/ops/soft_threshold/cpu.rs.

@group(0) @binding(5) var<storage, read_write> y: array<Map4>;

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
    let t = thresholds(i);
    let v = map4(x[i]);
    y[i] = to_map4(sign(v) * max(abs(v) - t, vec4<f32>(0.0)));
}
