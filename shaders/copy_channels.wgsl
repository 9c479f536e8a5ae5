//!include grid fours map
// y[row, y_first + j] = x[row, x_first + j] for j < count: copies a range of channels. Other
//   channels of y keep their values.
// Layouts: x (rows, x_channels), y (rows, y_channels).
// Invocation: LANES consecutive channels of one row.
// Grid: rows * count / LANES invocations.
// Precondition: LANES divides count.
// Twin: CopyChannels in src/ops/elementwise/cpu.rs.
override LANES: u32 = 1u;

struct Params {
    invocations: u32,
    per_row: u32,
    x_channels: u32,
    x_first: u32,
    y_channels: u32,
    y_first: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read_write> y: array<Map>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    if i >= p.invocations {
        return;
    }
    let row = i / p.per_row;
    let j = (i % p.per_row) * LANES;
    let source = row * p.x_channels + p.x_first + j;
    let target_start = row * p.y_channels + p.y_first + j;
    for (var lane = 0u; lane < LANES; lane++) {
        y[target_start + lane] = Map(f32(x[source + lane]));
    }
}
