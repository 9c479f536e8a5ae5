// Cooperative matrices of 16 by 16 that a subgroup holds and multiplies together, loaded from the
// workgroup memory of common/matrix_tile.wgsl. Strides are in vec4s, the element type of that
// memory. `lane`, the invocation within the subgroup, is used only by common/matrix_emulated.wgsl.
alias RowMatrix = coop_mat16x16<f16, A>;
alias ColumnMatrix = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

// 16 rows by 16 terms, terms being its columns. In memory each term is contiguous.
fn rows_at(at: u32) -> RowMatrix {
    return coopLoad<RowMatrix>(&row_tile[at], STEP);
}

// 16 terms by 16 columns, terms being its rows.
fn columns_at(at: u32) -> ColumnMatrix {
    return coopLoadT<ColumnMatrix>(&column_tile[at], STEP);
}

fn add_product(rows: RowMatrix, columns: ColumnMatrix, sums: Sums, lane: u32) -> Sums {
    return coopMultiplyAdd(rows, columns, sums);
}

fn put_sums(sums: Sums, at: u32, lane: u32) {
    coopStoreT(sums, &sum_tile[at], SUM_ROW);
}
