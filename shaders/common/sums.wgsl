// Sums of partial results: the second stage of reductions. One dispatch computes the sums of many
//   operations. Each has three rows of the table:
//   (first workgroup, LANES, vec4s of a slice, slices)
//   (start in partials, start in y, length of y, 0), both starts in vec4s
//   (0, 0, 0, 0)
//   y[i] = sum of partials[slice, i] over the slices; slices follow each other. Each workgroup has
//   256 / LANES vec4s. The LANES invocations of a vec4 take its slices in turn, and a tree adds
//   their sums. An invocation has eight loads in flight, since a load takes far longer than an
//   addition. Lanes of a vec4 past the length become 0: they lie between the ranges of the gradient
//   buffer, whose norm is taken over the whole buffer. Without slices y[i] keeps its value.
//   In both cases the kernel gets y[i], by its function `use_sum`.
// or, for a scalar,
//   (first workgroup, scalars of a step, index, number of partial sums)
//   (start in partials, start in scalars, 0, 1), both starts in elements
//   (bits of scale, root, sparsity, 0)
//   scalars[slot * width + index] = scale * s, s the sum in a fixed order. With root = 1 its square
//   root is taken first; with sparsity = 1 the result is multiplied by the step's sparsity_scale.
// Layouts: partials and y of whole vec4s, scalars (slots, width).
// Grid: the workgroups of all sums, 256 invocations each. Precondition: LANES is a power of two, at
//   most 64, and the first workgroups ascend from 0.
// Twin: the sums in src/ops/conv2d/cpu.rs, src/ops/loss/cpu.rs and src/ops/reduce/cpu.rs.

// There are scalars, or sums with LANES above 1. Without them the kernel has no barriers, which
// cost much on processors.
override TREES: bool = true;

// The table has one row, without slices: nothing is summed. A processor would look it up for each
// invocation.
override WHOLE: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<Four>;
@group(0) @binding(2) var<storage, read_write> y: array<Four>;
@group(0) @binding(3) var<storage, read_write> scalars: array<f32>;

var<workgroup> sums: array<vec4<f32>, 256>;

// Adds the elements of `sums` at the same place modulo `width` into the first `width`.
fn add_tree(local: u32, width: u32) {
    workgroupBarrier();
    for (var half = 128u; half >= width; half /= 2u) {
        if local < half {
            sums[local] += sums[local + half];
        }
        workgroupBarrier();
    }
}

fn sum_slices(shape: vec4<u32>, place: vec4<u32>, group: u32, local: u32) {
    let width = 256u / shape.y;
    let i = (group - shape.x) * width + local % width;
    let stride = shape.z * shape.y;
    let end = select(0u, shape.z * shape.w, i < shape.z) + place.x;
    var at = local / width * shape.z + i + place.x;
    var sum = vec4<f32>(0.0);
    while at + 7u * stride < end {
        let a = four(partials[at]);
        let b = four(partials[at + stride]);
        let c = four(partials[at + 2u * stride]);
        let d = four(partials[at + 3u * stride]);
        let e = four(partials[at + 4u * stride]);
        let f = four(partials[at + 5u * stride]);
        let g = four(partials[at + 6u * stride]);
        let h = four(partials[at + 7u * stride]);
        sum += ((a + b) + (c + d)) + ((e + f) + (g + h));
        at += 8u * stride;
    }
    while at < end {
        sum += four(partials[at]);
        at += stride;
    }
    if TREES && shape.y > 1u {
        sums[local] = sum;
        add_tree(local, width);
        sum = sums[local];
    }
    if local < width && i < shape.z {
        if shape.w == 0u {
            use_sum(place.y + i, four(y[place.y + i]));
            return;
        }
        let lane = 4u * i + vec4<u32>(0u, 1u, 2u, 3u);
        let total = select(vec4<f32>(0.0), sum, lane < vec4<u32>(place.z));
        y[place.y + i] = stored(total);
        use_sum(place.y + i, total);
    }
}

fn sum_scalar(shape: vec4<u32>, place: vec4<u32>, how: vec4<u32>, local: u32) {
    var sum = 0.0;
    for (var i = local; i < shape.w; i += 256u) {
        let at = place.x + i;
        sum += four(partials[at / 4u])[at % 4u];
    }
    sums[local] = vec4<f32>(sum);
    add_tree(local, 1u);
    if local == 0u {
        var total = sums[0].x;
        if how.y == 1u {
            total = sqrt(total);
        }
        total *= bitcast<f32>(how.x);
        if how.z == 1u {
            total *= step.sparsity_scale;
        }
        scalars[place.y + step.slot * shape.y + shape.z] = total;
    }
}

// Computes the part of a workgroup.
fn compute(group: u32, local: u32) {
    if WHOLE {
        let i = 256u * group + local;
        if i < p.table[0].z {
            use_sum(i, four(y[i]));
        }
        return;
    }
    var row = 0u;
    while row + 3u < 3u * p.count && p.table[row + 3u].x <= group {
        row += 3u;
    }
    let shape = p.table[row];
    let place = p.table[row + 1u];
    if !TREES || place.w == 0u {
        sum_slices(shape, place, group, local);
    } else if group == shape.x {
        sum_scalar(shape, place, p.table[row + 2u], local);
    }
}
