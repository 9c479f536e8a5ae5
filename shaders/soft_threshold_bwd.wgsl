//!include grid fours map threshold
// dx = dy and dt = -sign(x) * dy where |x| > t, else 0. t is the threshold of the channel; with
//   LEVELS it also depends on the noise level of the sample (common/threshold.wgsl).
// Layouts: x, dy, dx and dt (N,H,W,C); threshold and slope (C); level (N).
// Invocation: one vec4 of dx and of dt.
// Grid: ceil(len / 4) invocations.
// Precondition: without LEVELS `slope` and `level` are not read, and any f32 buffer can be bound.
// Twin: SoftThresholdBwd in src/ops/soft_threshold/cpu.rs.

@group(0) @binding(5) var<storage, read> dy: array<Map4>;
@group(0) @binding(6) var<storage, read_write> dx: array<Map4>;
@group(0) @binding(7) var<storage, read_write> dt: array<Map4>;

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
    let passed = select(vec4<f32>(0.0), map4(dy[i]), abs(v) > t);
    dx[i] = to_map4(passed);
    dt[i] = to_map4(-sign(v) * passed);
}
