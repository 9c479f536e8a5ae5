// Sums of the columns of a product, for the bias gradient. SUMS: whether to compute them.

override SUMS: bool = false;

// Layout: (slices, columns), slices padded to whole vec4s.
@group(0) @binding(7) var<storage, read_write> sums: array<Four>;

// Stores the sums of the columns from `first` to `past` in a slice. `added` has four columns: their
// sum over the terms that this invocation loaded. All invocations of the workgroup must call it.
fn store_sums(added: vec4<f32>, number: u32, first: u32, past: u32, local: u32) {
    workgroupBarrier();
    column_tile[local / 16u][0][local % 16u] = added;
    workgroupBarrier();
    let column = first + 4u * local;
    if local < COLUMNS && column < past {
        let a = column_tile[0][0][local] + column_tile[1][0][local];
        let b = column_tile[2][0][local] + column_tile[3][0][local];
        // Past the last column are loads from other memory.
        let inside = column + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(past);
        let at = (number * ((past + 3u) / 4u)) + column / 4u;
        sums[at] = stored(select(vec4<f32>(0.0), a + b, inside));
    }
}
