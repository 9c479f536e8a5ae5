// A tile of a matrix product on cooperative matrices: 64 rows by 4*COLUMNS columns. The subgroups
// of the workgroup share the rows in blocks of 16: subgroup i sums block i, and with BLOCKS = 2
// also block i + subgroups. So subgroups may have any size for which these are all four blocks.

const ROWS: u32 = 64u;
const QUADS: u32 = DEPTH / 4u;
// Vec4s of columns in the tile: 4, 8 or 16.
override COLUMNS: u32 = 16u;

// The first term of the buffer that was stored last, and whether there is one.
var<private> buffer: u32;
var<private> stored_one: bool;
// The bias of the four columns that the invocation stores.
var<private> added: vec4<f32>;

// The first row within the tile that an invocation loads, and the first term, of DEPTH. Consecutive
// invocations load what is contiguous in memory: with ROWS_BY_TERM terms, else rows.
fn row_of(local: u32) -> u32 {
    return select(local % 16u, local / QUADS, ROWS_BY_TERM) * 4u;
}

fn row_step_of(local: u32) -> u32 {
    return select(local / 16u, local % QUADS, ROWS_BY_TERM) * 4u;
}

// The same for columns. Beyond the columns of a narrow tile the loaded values are not used.
fn column_of(local: u32) -> u32 {
    return select(local % 16u, local / QUADS, COLUMNS_BY_TERM) * 4u;
}

fn column_step_of(local: u32) -> u32 {
    return select(local / 16u, local % QUADS, COLUMNS_BY_TERM) * 4u;
}

// Adds the terms of the buffer that was stored last to the sums.
fn multiply(place: Place) {
    let row0 = subgroup_of(place) * 16u;
    let row1 = min(row0 + subgroups_of(place) * 16u, ROWS);
    // More than four subgroups: the rest of them has no rows.
    if row0 < ROWS {
        for (var i = 0u; i < DEPTH; i += SIDE) {
            add_lines(buffer + i, row0, row1, lane_of(place));
        }
    }
    // The first time there is nothing to add: the memory holds anything. A branch around the
    // products instead would make compilers wait for the loads in front of it.
    if !stored_one {
        clear_sums();
    }
}

// Adds DEPTH terms to the tile. Each invocation contributes four of them: column j of `columns` and
// of `rows` holds the four columns and rows that it loaded for term j. They are multiplied in the
// next call, so that the loads for it overlap the products.
fn add_products(columns: mat4x4<f32>, rows: mat4x4<f32>, place: Place) {
    multiply(place);
    if BUFFERS == 1u {
        workgroupBarrier();
    } else {
        buffer = DEPTH - buffer;
    }
    keep_rows(buffer + row_step_of(place.local), row_of(place.local), rows);
    keep_columns(buffer + column_step_of(place.local), column_of(place.local), columns);
    stored_one = true;
    workgroupBarrier();
}

// The first column within the tile whose bias an invocation loads.
fn bias_column_of(local: u32) -> u32 {
    return local % 16u * 4u;
}

// Adds the bias of four columns to every row. Each invocation has those from bias_column_of on.
fn add_to_rows(columns: vec4<f32>, local: u32) {
    added = columns;
}

// Stores the tile whose first row and column are given, one block of rows after the other.
fn store_tile(row: u32, column: u32, place: Place) {
    multiply(place);
    // 64 invocations store a block of 16 rows: four rows each, so that the epilogue can use all
    // four (max pooling).
    let down = place.local / 16u * 4u;
    let at = bias_column_of(place.local);
    for (var i = 0u; i < 4u; i++) {
        workgroupBarrier();
        if i % subgroups_of(place) == subgroup_of(place) {
            put_block(i / subgroups_of(place), lane_of(place));
        }
        workgroupBarrier();
        if place.local < 64u && at < 4u * COLUMNS {
            let sums = mat4x4<f32>(
                four_sums_at(down, at),
                four_sums_at(down + 1u, at),
                four_sums_at(down + 2u, at),
                four_sums_at(down + 3u, at),
            );
            let bias = mat4x4<f32>(added, added, added, added);
            store_rows(row + i * 16u + down, column + at, sums + bias);
        }
    }
}
