//!include grid map fours
// sums[slice, c] = sum of x[row, c] over the rows of a slice; with WEIGHTED, of x[row, c] *
//   weight[n], n the sample of the row.
// Layouts: x (rows, C), weight (N), sums (slices, 4 * stride_vectors) with zeros behind the last
//   channel. One slice is the result itself; several are added by sum_partials.
// A column is a vec4 of channels if C is a multiple of 4, else one channel.
// Workgroup: one slice of `lanes` columns. 256 / lanes invocations share a column and take its rows
//   in turn, so that neighbouring invocations read neighbouring addresses.
// Grid: blocks * slices workgroups of 256.
// Preconditions: `lanes` is a power of two, at least 4 if a column is one channel. Without WEIGHTED
//   `weight` is not read, and any f32 buffer can be bound.
// Twin: ChannelSum in src/ops/reduce/cpu.rs.
struct Params {
    rows: u32,
    channels: u32,
    lanes: u32,
    blocks: u32,
    rows_per_slice: u32,
    slices: u32,
    stride_vectors: u32,
    sample_rows: u32,
}

override WEIGHTED: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map4>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> sums: array<Four>;

var<workgroup> columns: array<vec4<f32>, 256>;

fn weight_of(row: u32) -> f32 {
    if WEIGHTED {
        return weight[row / p.sample_rows];
    }
    return 1.0;
}

// One channel of a row, for a number of channels that is not a multiple of 4.
fn narrow(row: u32, column: u32) -> f32 {
    let e = row * p.channels + column;
    return map4(x[e / 4u])[e % 4u];
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
    var sum = vec4<f32>(0.0);
    if wide && column < p.channels / 4u {
        let vectors = p.channels / 4u;
        var row = begin;
        // Four loads in flight, since a load takes far longer than an addition.
        while row + 3u * row_lanes < end {
            let a = map4(x[row * vectors + column]);
            let b = map4(x[(row + row_lanes) * vectors + column]);
            let c = map4(x[(row + 2u * row_lanes) * vectors + column]);
            let d = map4(x[(row + 3u * row_lanes) * vectors + column]);
            sum += (a * weight_of(row) + b * weight_of(row + row_lanes))
                + (c * weight_of(row + 2u * row_lanes) + d * weight_of(row + 3u * row_lanes));
            row += 4u * row_lanes;
        }
        while row < end {
            sum += map4(x[row * vectors + column]) * weight_of(row);
            row += row_lanes;
        }
    } else if !wide && column < p.channels {
        var row = begin;
        while row + 3u * row_lanes < end {
            let a = narrow(row, column);
            let b = narrow(row + row_lanes, column);
            let c = narrow(row + 2u * row_lanes, column);
            let d = narrow(row + 3u * row_lanes, column);
            sum.x += (a * weight_of(row) + b * weight_of(row + row_lanes))
                + (c * weight_of(row + 2u * row_lanes) + d * weight_of(row + 3u * row_lanes));
            row += 4u * row_lanes;
        }
        while row < end {
            sum.x += narrow(row, column) * weight_of(row);
            row += row_lanes;
        }
    }
    columns[local] = sum;
    workgroupBarrier();
    for (var half = 128u; half >= p.lanes; half /= 2u) {
        if local < half {
            columns[local] += columns[local + half];
        }
        workgroupBarrier();
    }
    if wide {
        if local < p.lanes && column < p.stride_vectors {
            sums[slice * p.stride_vectors + column] = stored(columns[local]);
        }
    } else {
        let vector = block * (p.lanes / 4u) + local;
        if local < p.lanes / 4u && vector < p.stride_vectors {
            let i = 4u * local;
            let value = vec4<f32>(
                columns[i].x,
                columns[i + 1u].x,
                columns[i + 2u].x,
                columns[i + 3u].x,
            );
            sums[slice * p.stride_vectors + vector] = stored(value);
        }
    }
}
