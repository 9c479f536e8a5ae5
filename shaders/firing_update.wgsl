//!include grid fours map
// idle[c] = 0 if any z[row, c] of the workgroup's rows is nonzero (by its bits), else idle[c] +
//   increment.
// With one slice, `increment` is 1. With more, a first dispatch without rows adds 1 everywhere, and
//   a second with increment 0 clears the units that fired. Several workgroups may then clear the
//   same element, hence the atomics (the bits of 0.0 are 0).
// Layouts: z (rows, C), rows = N*H*W; idle (C), f32 accessed as bits.
// A column is a vec4 of channels if C is a multiple of 4, else one channel.
// Workgroup: one slice of `lanes` columns. 256 / lanes invocations share a column and take its rows
//   in turn, so that neighbouring invocations read neighbouring addresses.
// Grid: blocks * slices workgroups of 256.
// Precondition: `lanes` is a power of two.
// Twin: FiringUpdate in src/ops/revive/cpu.rs.
struct Params {
    rows: u32,
    channels: u32,
    lanes: u32,
    blocks: u32,
    rows_per_slice: u32,
    slices: u32,
    increment: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<Map4>;
@group(0) @binding(2) var<storage, read_write> idle: array<atomic<u32>>;

var<workgroup> seen: array<vec4<u32>, 256>;

fn update(c: u32, bits: u32) {
    if bits != 0u {
        atomicStore(&idle[c], 0u);
    } else if p.increment != 0u {
        atomicStore(&idle[c], bitcast<u32>(bitcast<f32>(atomicLoad(&idle[c])) + 1.0));
    }
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = flat_workgroup(group, groups) % p.blocks;
    let slice = flat_workgroup(group, groups) / p.blocks;
    if slice >= p.slices {
        return;
    }
    let wide = p.channels % 4u == 0u;
    let column = block * p.lanes + local % p.lanes;
    let row_lanes = 256u / p.lanes;
    let begin = slice * p.rows_per_slice + local / p.lanes;
    let end = min((slice + 1u) * p.rows_per_slice, p.rows);
    var bits = vec4<u32>(0u);
    if wide && column < p.channels / 4u {
        let vectors = p.channels / 4u;
        var row = begin;
        // Four loads in flight, since a load takes far longer than an operation on bits.
        while row + 3u * row_lanes < end {
            let a = z[row * vectors + column];
            let b = z[(row + row_lanes) * vectors + column];
            let c = z[(row + 2u * row_lanes) * vectors + column];
            let d = z[(row + 3u * row_lanes) * vectors + column];
            bits |= vec4<u32>((nonzero4(a) | nonzero4(b)) | (nonzero4(c) | nonzero4(d)));
            row += 4u * row_lanes;
        }
        while row < end {
            bits |= vec4<u32>(nonzero4(z[row * vectors + column]));
            row += row_lanes;
        }
    } else if !wide && column < p.channels {
        for (var row = begin; row < end; row += row_lanes) {
            let e = row * p.channels + column;
            bits.x |= u32(nonzero4(z[e / 4u])[e % 4u]);
        }
    }
    seen[local] = bits;
    workgroupBarrier();
    for (var half = 128u; half >= p.lanes; half /= 2u) {
        if local < half {
            seen[local] |= seen[local + half];
        }
        workgroupBarrier();
    }
    if local < p.lanes {
        bits = seen[local];
        if wide && column < p.channels / 4u {
            update(4u * column, bits.x);
            update(4u * column + 1u, bits.y);
            update(4u * column + 2u, bits.z);
            update(4u * column + 3u, bits.w);
        } else if !wide && column < p.channels {
            update(column, bits.x);
        }
    }
}
