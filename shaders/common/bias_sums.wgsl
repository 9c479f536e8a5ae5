// Bias gradients beside the product: sums of what the workgroup loads anyway.

// 0: none. 1: the bias gradient of a convolution, dy summed over its pixels. 2: that of a
// transposed convolution, x summed over its pixels. The taps whose place in x lies from 0 to the
// stride then reach every pixel of x once.
override SUMS: u32 = 0u;

// Layout: (slices, K) for dy, (slices, stride_h, stride_w, C) for x; K and C padded to whole vec4s.
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;

// Stores the sums of four filters of dy. `added`: the sums over the terms that this invocation
// loaded. `first`: the first filter of the tile. All invocations of the workgroup must call it.
fn store_filter_sums(added: vec4<f32>, number: u32, first: u32, local: u32) {
    let total = sum_of_loads(added, local);
    let k = first + 4u * local;
    if local < COLUMNS && k < p.k {
        // Past the last filter are loads from other memory.
        let inside = k + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.k);
        let v = select(vec4<f32>(0.0), total, inside);
        let at = number * ((p.k + 3u) / 4u * 4u) + k;
        sums[at] = v.x;
        sums[at + 1u] = v.y;
        sums[at + 2u] = v.z;
        sums[at + 3u] = v.w;
    }
}

// Stores the sum of a row (r,s,c), if its tap is one of those that reach every pixel of x once.
fn store_row_sum(row: u32, down: u32, along: u32, number: u32, v: f32) {
    if down < p.stride_h && along < p.stride_w {
        let tap = (number * p.stride_h + down) * p.stride_w + along;
        sums[tap * ((p.c + 3u) / 4u * 4u) + row % p.c] = v;
    }
}

// Stores the sums of four rows of x, as store_filter_sums does for dy. `rows`: the rows that this
// invocation loads, from `first` on.
fn store_row_sums(added: vec4<f32>, number: u32, first: u32, rows: Rows, local: u32) {
    let total = sum_of_loads(added, local);
    if local < ROWS / 4u {
        store_row_sum(first, rows.down.x, rows.along.x, number, total.x);
        store_row_sum(first + 1u, rows.down.y, rows.along.y, number, total.y);
        store_row_sum(first + 2u, rows.down.z, rows.along.z, number, total.z);
        store_row_sum(first + 3u, rows.down.w, rows.along.w, number, total.w);
    }
}
