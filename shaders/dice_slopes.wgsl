//!include grid
// Finishes the soft Dice loss of each class c. I and U are the sums that dice_sums wrote, added
//   over the slices, and s = smoothing:
//   partials[c] = 1 - (2 I + s) / (U + s), the loss
//   partials[classes + c] = (2 I + s) / (U + s)^2, its derivative with respect to q[c] where c is
//     not the label
//   partials[2 classes + c] = 2 / (U + s), which is subtracted from the derivative where c is the
//     label
// Layouts: partials (3 classes, then at `start` (classes, slices, 2)).
// Invocation: one class.
// Grid: `classes` invocations, workgroups of 64.
// Twin: Dice in src/ops/segmentation/cpu.rs.
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
    var intersection = 0.0;
    var union_sum = 0.0;
    for (var slice = 0u; slice < p.slices; slice++) {
        let at = p.start + 2u * (c * p.slices + slice);
        intersection += partials[at];
        union_sum += partials[at + 1u];
    }
    let denominator = union_sum + p.smoothing;
    let ratio = (2.0 * intersection + p.smoothing) / denominator;
    // 1 - ratio in one step, without the rounding error of the ratio.
    partials[c] = (union_sum - 2.0 * intersection) / denominator;
    partials[p.classes + c] = ratio / denominator;
    partials[2u * p.classes + c] = 2.0 / denominator;
}
