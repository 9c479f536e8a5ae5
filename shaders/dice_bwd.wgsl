//!include grid fours map
// dy += scale * q * (g - sum over classes of q * g) for each pixel with a nonzero weight: the
//   gradient of the soft Dice loss with respect to the logits. q = softmax(logits), and g is the
//   derivative of the loss with respect to q, from dice_slopes.
// Layouts: q and dy (pixels, classes), labels and weights (pixels), partials as written by
//   dice_slopes.
// Invocation: one pixel.
// Grid: `pixels` invocations, workgroups of 64.
// Twin: Dice in src/ops/segmentation/cpu.rs.
struct Params {
    pixels: u32,
    classes: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<Map>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> partials: array<f32>;
@group(0) @binding(5) var<storage, read_write> dy: array<Map>;

fn slope(c: u32, label: u32) -> f32 {
    return partials[p.classes + c] - select(0.0, partials[2u * p.classes + c], c == label);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.pixels || weights[i] == 0.0 {
        return;
    }
    let base = i * p.classes;
    let label = labels[i];
    var mean = 0.0;
    for (var c = 0u; c < p.classes; c++) {
        mean += f32(q[base + c]) * slope(c, label);
    }
    for (var c = 0u; c < p.classes; c++) {
        let at = base + c;
        dy[at] = Map(f32(dy[at]) + p.scale * f32(q[at]) * (slope(c, label) - mean));
    }
}
