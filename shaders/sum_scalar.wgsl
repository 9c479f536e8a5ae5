//!include step
// scalars[slot * width + index] = scale * s, s the sum of partials[offset .. offset + count] in a
//   fixed order. With root = 1 its square root is taken first; with sparsity = 1 the result is
//   multiplied by the step's sparsity_scale. This is the second stage of every reduction to a
//   scalar.
// Layouts: partials (at least offset + count), scalars (slots, width).
// Invocation: partials local, local + 256, ...
// Grid: one workgroup of 256.
// Twin: the sums in src/ops/loss/cpu.rs and src/ops/reduce/cpu.rs.
struct Params {
    offset: u32,
    count: u32,
    width: u32,
    index: u32,
    scale: f32,
    root: u32,
    sparsity: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> scalars: array<f32>;
@group(0) @binding(3) var<uniform> step: Step;

var<workgroup> sums: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < p.count; i += 256u) {
        sum += partials[p.offset + i];
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
        var total = sums[0];
        if p.root == 1u {
            total = sqrt(total);
        }
        total *= p.scale;
        if p.sparsity == 1u {
            total *= step.sparsity_scale;
        }
        scalars[step.slot * p.width + p.index] = total;
    }
}
