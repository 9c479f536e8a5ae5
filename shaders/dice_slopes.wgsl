//!include grid
// Of each class c, with the sums I and U of its slices and s = smooth: the term 1 - (2 I + s) / (U
// + s) in partials[c], its slope by a q[c] that is not the label's, (2 I + s) / (U + s)^2, in
// partials[classes + c], and what the label's is lower by, 2 / (U + s), in partials[2 classes + c].
// One invocation: one class. Grid: classes invocations, workgroups of 64. Twin: Dice in
// src/reference/segmentation.rs.
struct Params {
    classes: u32,
    slices: u32,
    start: u32,
    smoothing: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let c = flat_invocation(group, groups, local, 64u);
    if c >= p.classes {
        return;
    }
    var both = 0.0;
    var either = 0.0;
    for (var slice = 0u; slice < p.slices; slice++) {
        let at = p.start + 2u * (c * p.slices + slice);
        both += partials[at];
        either += partials[at + 1u];
    }
    let below = either + p.smoothing;
    let ratio = (2.0 * both + p.smoothing) / below;
    // U - 2 I is the sum of differences: nothing cancels that did not before
    partials[c] = (either - 2.0 * both) / below;
    partials[p.classes + c] = ratio / below;
    partials[2u * p.classes + c] = 2.0 / below;
}
