// Cooperative matrices of 8 by 8 in single precision, as Metal has them, loaded from the memory of
// common/matrix_memory_8x8.wgsl. naga's Metal accepts only pointers to scalars here. `lane`, the
// invocation within the subgroup, is used only by common/matrix_emulated.wgsl.
alias RowMatrix = coop_mat8x8<f32, A>;
alias ColumnMatrix = coop_mat8x8<f32, B>;
alias Sums = coop_mat8x8<f32, C>;

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

// 8 rows from `row` on by 8 terms from `line` on. In memory the rows of a term are contiguous.
fn rows_at(line: u32, row: u32) -> RowMatrix {
    return coopLoad<RowMatrix>(&row_tile[line * LINE + row], LINE);
}

// 8 terms from `line` on by 8 columns from `column` on.
fn columns_at(line: u32, column: u32) -> ColumnMatrix {
    return coopLoadT<ColumnMatrix>(&column_tile[line * LINE + column], LINE);
}

fn add_product(rows: RowMatrix, columns: ColumnMatrix, sums: Sums, lane: u32) -> Sums {
    return coopMultiplyAdd(rows, columns, sums);
}

fn put_sums(sums: Sums, row: u32, column: u32, lane: u32) {
    coopStoreT(sums, &sum_tile[row * SUM_LINE + column], SUM_LINE);
}
