// common/matrix.wgsl in plain WGSL, so that an adapter without cooperative matrices can check
// everything around them. It is slow.
// Each of 32 invocations holds 8 of the sums: half a row. A matrix is represented by its offset in
// workgroup memory, which does not change until it is multiplied. Nothing depends on subgroups.
alias RowMatrix = u32;
alias ColumnMatrix = u32;

struct Sums {
    left: vec4<f32>,
    right: vec4<f32>,
}

fn rows_at(at: u32) -> RowMatrix {
    return at;
}

fn columns_at(at: u32) -> ColumnMatrix {
    return at;
}

fn add_product(rows: RowMatrix, columns: ColumnMatrix, sums: Sums, lane: u32) -> Sums {
    var updated = sums;
    for (var step = 0u; step < 16u * STEP; step += STEP) {
        let value = f32(row_tile[rows + step + lane / 8u][lane / 2u % 4u]);
        let first = columns + step + lane % 2u * 2u;
        updated.left += value * vec4<f32>(column_tile[first]);
        updated.right += value * vec4<f32>(column_tile[first + 1u]);
    }
    return updated;
}

fn put_sums(sums: Sums, at: u32, lane: u32) {
    let first = at + lane / 2u * SUM_ROW + lane % 2u * 2u;
    sum_tile[first] = sums.left;
    sum_tile[first + 1u] = sums.right;
}
