// Stores four rows of a product one by one: column i of `sums` holds four columns of row i.
fn store_rows(row: u32, column: u32, sums: mat4x4<f32>) {
    store(row, column, sums[0]);
    store(row + 1u, column, sums[1]);
    store(row + 2u, column, sums[2]);
    store(row + 3u, column, sums[3]);
}
