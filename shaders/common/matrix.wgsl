// Cooperative matrices of 16 by 16 that a subgroup holds and multiplies together, loaded from the
// memory of common/matrix_memory.wgsl. Strides are in vec4s, the element type of that memory.
// `lane`, the invocation within the subgroup, is used only by common/matrix_emulated.wgsl.
alias RowMatrix = coop_mat16x16<f16, A>;
alias ColumnMatrix = coop_mat16x16<f16, B>;
alias Sums = coop_mat16x16<f32, C>;

// The place of an invocation in its workgroup.
struct Place {
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

fn subgroup_of(place: Place) -> u32 {
    return place.subgroup;
}

fn subgroups_of(place: Place) -> u32 {
    return place.subgroups;
}

fn lane_of(place: Place) -> u32 {
    return 0u;
}

// 16 rows from `row` on by 16 terms from `term` on.
fn rows_at(term: u32, row: u32) -> RowMatrix {
    if ROWS_BY_TERM {
        return coopLoadT<RowMatrix>(&row_tile[row * LINE + term / 4u], LINE);
    }
    return coopLoad<RowMatrix>(&row_tile[term * LINE + row / 4u], LINE);
}

// 16 terms from `term` on by 16 columns from `column` on.
fn columns_at(term: u32, column: u32) -> ColumnMatrix {
    if COLUMNS_BY_TERM {
        return coopLoad<ColumnMatrix>(&column_tile[column * LINE + term / 4u], LINE);
    }
    return coopLoadT<ColumnMatrix>(&column_tile[term * LINE + column / 4u], LINE);
}

fn add_product(rows: RowMatrix, columns: ColumnMatrix, sums: Sums, lane: u32) -> Sums {
    return coopMultiplyAdd(rows, columns, sums);
}

fn put_sums(sums: Sums, row: u32, column: u32, lane: u32) {
    coopStoreT(sums, &sum_tile[row * SUM_LINE + column / 4u], SUM_LINE);
}
