// The product of the forward convolution kernels with tiles: rows are pixels, in the order of
// conv2d_fwd_pixels or conv2d_fwd_windows, columns are filters, the sum runs over (r,s,c).

override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;

// The slice of the sum that the workgroup computes.
var<private> slice: u32;

// A term of the sum: tap (r,s) and channel.
struct Step {
    r: u32,
    s: u32,
    c: u32,
}

fn term(number: u32) -> Step {
    let tap = number / p.c;
    return Step(tap / p.s, tap % p.s, number % p.c);
}

// The term `by` terms further on.
fn advance(step: Step, by: u32) -> Step {
    var next = step;
    next.c += by;
    // Branch-free. One wrap is enough if `by` is 1, or 4 with C a multiple of 4.
    let wraps = next.c >= p.c;
    next.c -= select(0u, p.c, wraps);
    next.s += u32(wraps);
    next.r += u32(next.s == p.s);
    next.s = select(next.s, 0u, next.s == p.s);
    if DEPTH > 4u {
        while next.c >= p.c {
            next.c -= p.c;
            next.s++;
            if next.s == p.s {
                next.s = 0u;
                next.r++;
            }
        }
    }
    return next;
}

// The indices in x of the four pixels' values for a term, -1 in the padding and past the last tap.
fn under_tap(pixels: Pixels, step: Step) -> vec4<i32> {
    let h = pixels.h + i32(step.r * p.dilation_h);
    let column = pixels.w + i32(step.s * p.dilation_w);
    let inside = (vec4<u32>(h) < vec4<u32>(p.h))
        & (vec4<u32>(column) < vec4<u32>(p.w))
        & vec4<bool>(step.r < p.r);
    let pixel = (pixels.n * i32(p.h) + h) * i32(p.w) + column;
    return select(vec4<i32>(-1), pixel * i32(p.c) + i32(step.c), inside);
}

// In the padding element 0 is read and discarded, which is cheaper than a branch.
fn load_x4(at: i32) -> vec4<f32> {
    return select(map4(x4[u32(max(at, 0)) / 4u]), vec4<f32>(0.0), at < 0);
}

fn load_x(at: i32) -> f32 {
    return select(f32(x[u32(max(at, 0))]), 0.0, at < 0);
}

// Four filters of term `row` of the sum. Past the last term the values of x are 0, so any weights
// will do.
fn load_w(row: u32, k: u32) -> vec4<f32> {
    let i = select(0u, row * p.k + k, row < p.r * p.s * p.c);
    if VEC_K {
        return four(w4[i / 4u]);
    }
    return vec4<f32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]);
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(group, groups);
    let blocks = (p.k + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let k = i % blocks * 4u * COLUMNS;
    let row_blocks = (rows() + ROWS - 1u) / ROWS;
    let first = i / blocks % row_blocks * ROWS;
    // The loop below contains barriers, so its bounds must be uniform. Uniformity analysis accepts
    // this local, but not the private variable.
    let number = i / (blocks * row_blocks);
    // A folded grid may hold workgroups past the last slice.
    if number >= p.slices {
        return;
    }
    slice = number;
    let column = k + column_of(local);
    if p.has_bias != 0u {
        add_to_rows(vec4<f32>(b[column], b[column + 1u], b[column + 2u], b[column + 3u]), local);
    }
    let pixels = locate(first + row_of(local));
    let begin = number * p.slice_terms;
    let end = min(begin + p.slice_terms, p.r * p.s * p.c);
    var row = begin + step_of(local);
    var step = term(row);
    for (var done = begin; done < end; done += DEPTH) {
        let weights = mat4x4<f32>(
            load_w(row, column),
            load_w(row + 1u, column),
            load_w(row + 2u, column),
            load_w(row + 3u, column),
        );
        if VEC_C {
            let at = under_tap(pixels, step);
            let values = mat4x4<f32>(load_x4(at.x), load_x4(at.y), load_x4(at.z), load_x4(at.w));
            add_products(weights, transpose(values), local);
            step = advance(step, DEPTH);
        } else {
            var values: mat4x4<f32>;
            for (var j = 0u; j < 4u; j++) {
                let at = under_tap(pixels, step);
                values[j] = vec4<f32>(load_x(at.x), load_x(at.y), load_x(at.z), load_x(at.w));
                step = advance(step, 1u);
            }
            add_products(weights, values, local);
            if DEPTH > 4u {
                step = advance(step, DEPTH - 4u);
            }
        }
        row += DEPTH;
    }
    store_tile(first, k, local);
}
