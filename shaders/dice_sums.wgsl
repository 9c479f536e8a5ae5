//!include grid fours map
// Sums of the soft Dice loss for one class c and one slice of the pixels, over the pixels with a
//   nonzero weight:
//   partials[start + 2 (c * slices + slice)] = sum of q[c] where c is the label
//   the element after it = sum of q[c] + number of pixels whose label is c
// Layouts: q (pixels, classes), labels and weights (pixels).
// Workgroup: one slice of one class. A slice takes every `slices`th block of 256 pixels.
// Grid: classes * slices workgroups of 256.
// Twin: Dice in src/ops/segmentation/cpu.rs.
struct Params {
    pixels: u32,
    classes: u32,
    slices: u32,
    start: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<Map>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

var<workgroup> sums: array<vec2<f32>, 256>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let number = flat_workgroup(group, groups);
    if number >= p.classes * p.slices {
        return;
    }
    let class_ = number / p.slices;
    var sum = vec2<f32>(0.0);
    for (var i = (number % p.slices) * 256u + local; i < p.pixels; i += p.slices * 256u) {
        if weights[i] != 0.0 {
            let share = f32(q[i * p.classes + class_]);
            let is_label = select(0.0, 1.0, labels[i] == class_);
            sum += vec2<f32>(share * is_label, share + is_label);
        }
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
        partials[p.start + 2u * number] = sums[0].x;
        partials[p.start + 2u * number + 1u] = sums[0].y;
    }
}
