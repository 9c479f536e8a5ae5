// Matrices of 16 by 16 that a subgroup holds together, of the workgroup memory of
// common/matrix_tile.wgsl: 16 rows by 16 steps, 16 steps by 16 columns, and their sums. A stride is
// in vec4s, as the memory is. `lane`, the invocation within the subgroup, is for
// common/matrix_emulated.wgsl.
alias RowMatrix = coop_mat16x16<f16, A>;
alias ColumnMatrix = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

// Steps lie behind each other: of these matrices they are the columns,
fn rows_at(at: u32) -> RowMatrix {
    return coopLoad<RowMatrix>(&row_tile[at], STEP);
}

// and of these the rows.
fn columns_at(at: u32) -> ColumnMatrix {
    return coopLoadT<ColumnMatrix>(&column_tile[at], STEP);
}

fn add_product(rows: RowMatrix, columns: ColumnMatrix, sums: Sums, lane: u32) -> Sums {
    return coopMultiplyAdd(rows, columns, sums);
}

fn put_sums(sums: Sums, at: u32, lane: u32) {
    coopStoreT(sums, &sum_tile[at], SUM_ROW);
}
