// The product of the conv2d_bwd_input kernels with tiles: rows are the pixels of one phase of x,
// columns are channels, the sum runs over the taps of the phase and the filters. A phase is the set
// of pixels with the same (h mod stride, w mod stride): they share their taps.

override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> y4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<Four>;
@group(0) @binding(5) var<storage, read> b: array<f32>;

// The slice of the sum that the workgroup computes.
var<private> slice: u32;

// A phase: its first pixel of x, and the size of its grid of pixels.
struct Phase {
    h: u32,
    w: u32,
    rows: u32,
    columns: u32,
}

// The taps of a phase along one axis: first + j * spacing for j < count. Tap j takes position i of
// the phase's grid to position i - (offset + j * offset_step) of y.
struct Taps {
    first: u32,
    spacing: u32,
    count: u32,
    offset: i32,
    offset_step: i32,
}

var<private> phase: Phase;
var<private> down: Taps;
var<private> along: Taps;

// The taps t < count for which at - t*dilation is a multiple of the stride.
fn taps_of(at: u32, count: u32, dilation: u32, stride: u32) -> Taps {
    var taps = Taps(0u, 1u, 0u, 0, 0);
    // Whole strides are added to keep the operand of % positive: OpenGL leaves the remainder of a
    // negative number undefined.
    let positive = at + count * dilation * stride;
    while taps.first < count && (positive - taps.first * dilation) % stride != 0u {
        taps.first++;
    }
    while taps.spacing * dilation % stride != 0u {
        taps.spacing++;
    }
    taps.count = (count - taps.first + taps.spacing - 1u) / taps.spacing;
    taps.offset = i32(count * dilation) - i32((positive - taps.first * dilation) / stride);
    taps.offset_step = i32(taps.spacing * dilation / stride);
    return taps;
}

fn phase_of(number: u32) -> Phase {
    let rows = (p.h + p.stride_h - 1u) / p.stride_h;
    let columns = (p.w + p.stride_w - 1u) / p.stride_w;
    return Phase(number / p.stride_w, number % p.stride_w, rows, columns);
}

// Four pixels of x: their samples and their places in the phase's grid.
struct Pixels {
    n: vec4<i32>,
    h: vec4<i32>,
    w: vec4<i32>,
}

// The four pixels from number `first` of the phase on.
fn locate(first: u32) -> Pixels {
    let pixel = first + vec4<u32>(0u, 1u, 2u, 3u);
    let row = pixel / phase.columns;
    let inside = row < vec4<u32>(p.n * phase.rows);
    // -2^30 for pixels past the end: outside y whatever a tap adds.
    let h = select(vec4<i32>(-0x40000000), vec4<i32>(row % phase.rows), inside);
    return Pixels(vec4<i32>(row / phase.rows), h, vec4<i32>(pixel % phase.columns));
}

// A term of the sum: tap (r,s), counted among the taps of the phase, and filter.
struct Step {
    r: u32,
    s: u32,
    k: u32,
}

fn term(number: u32) -> Step {
    // A phase without taps has no terms.
    let tap = number / p.k;
    return Step(tap / max(along.count, 1u), tap % max(along.count, 1u), number % p.k);
}

// The term `by` terms further on.
fn advance(step: Step, by: u32) -> Step {
    var next = step;
    next.k += by;
    // Branch-free. One wrap is enough if `by` is 1, or 4 with K a multiple of 4.
    let wraps = next.k >= p.k;
    next.k -= select(0u, p.k, wraps);
    next.s += u32(wraps);
    next.r += u32(next.s == along.count);
    next.s = select(next.s, 0u, next.s == along.count);
    if DEPTH > 4u {
        while next.k >= p.k {
            next.k -= p.k;
            next.s++;
            if next.s == along.count {
                next.s = 0u;
                next.r++;
            }
        }
    }
    return next;
}

// The indices in y of the four pixels' values for a term, -1 outside y.
fn under_tap(pixels: Pixels, step: Step) -> vec4<i32> {
    let row = pixels.h - (down.offset + i32(step.r) * down.offset_step);
    let column = pixels.w - (along.offset + i32(step.s) * along.offset_step);
    let inside = (vec4<u32>(row) < vec4<u32>(p.p))
        & (vec4<u32>(column) < vec4<u32>(p.q))
        & vec4<bool>(step.r < down.count);
    let pixel = (pixels.n * i32(p.p) + row) * i32(p.q) + column;
    return select(vec4<i32>(-1), pixel * i32(p.k) + i32(step.k), inside);
}

// The index in w of the weights of a term and a channel. Past the last tap the pixels' values are
// 0, so any weights will do.
fn weight_of(step: Step, c: u32) -> u32 {
    let tap = (down.first + step.r * down.spacing) * p.s + along.first + step.s * along.spacing;
    return select(0u, (tap * p.c + c) * p.k + step.k, step.r < down.count);
}

// Outside the map element 0 is read and discarded, which is cheaper than a branch.
fn load_y4(at: i32) -> vec4<f32> {
    return select(map4(y4[u32(max(at, 0)) / 4u]), vec4<f32>(0.0), at < 0);
}

fn load_y(at: i32) -> f32 {
    return select(f32(y[u32(max(at, 0))]), 0.0, at < 0);
}

// Stores four channels of a pixel, numbered within the phase.
fn store(pixel: u32, c: u32, sum: vec4<f32>) {
    let row = pixel / phase.columns;
    let n = row / phase.rows;
    let h = row % phase.rows * p.stride_h + phase.h;
    let column = pixel % phase.columns * p.stride_w + phase.w;
    if n >= p.n || h >= p.h || column >= p.w || c >= p.c {
        return;
    }
    put(((n * p.h + h) * p.w + column) * p.c + c, c, sum);
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(group, groups);
    let c_blocks = (p.c + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let c = i % c_blocks * 4u * COLUMNS;
    let grid = phase_of(0u);
    let blocks = (p.n * grid.rows * grid.columns + ROWS - 1u) / ROWS;
    let first = i / c_blocks % blocks * ROWS;
    // The loop below contains barriers, so its bounds must be uniform. Uniformity analysis accepts
    // these locals, but not the private variables.
    let phases = p.stride_h * p.stride_w;
    let number = i / (c_blocks * blocks) % phases;
    let slice_number = i / (c_blocks * blocks * phases);
    // A folded grid may hold workgroups past the last slice.
    if slice_number >= p.slices {
        return;
    }
    slice = slice_number;
    phase = phase_of(number);
    let taps_down = taps_of(number / p.stride_w + p.pad_h, p.r, p.dilation_h, p.stride_h);
    let taps_along = taps_of(number % p.stride_w + p.pad_w, p.s, p.dilation_w, p.stride_w);
    down = taps_down;
    along = taps_along;
    let column = c + column_of(local);
    if p.has_bias != 0u {
        add_to_rows(vec4<f32>(b[column], b[column + 1u], b[column + 2u], b[column + 3u]), local);
    }
    let pixels = locate(first + row_of(local));
    let begin = slice_number * p.slice_terms;
    let end = min(begin + p.slice_terms, taps_down.count * taps_along.count * p.k);
    var step = term(begin + step_of(local));
    for (var done = begin; done < end; done += DEPTH) {
        if VEC_K {
            let at = under_tap(pixels, step);
            let values = mat4x4<f32>(load_y4(at.x), load_y4(at.y), load_y4(at.z), load_y4(at.w));
            let i = weight_of(step, column) / 4u;
            let weights = mat4x4<f32>(
                four(w4[i]),
                four(w4[i + p.k / 4u]),
                four(w4[i + p.k / 2u]),
                four(w4[i + p.k / 4u * 3u]),
            );
            add_products(transpose(weights), transpose(values), local);
            step = advance(step, DEPTH);
        } else {
            var values: mat4x4<f32>;
            var weights: mat4x4<f32>;
            for (var j = 0u; j < 4u; j++) {
                let at = under_tap(pixels, step);
                values[j] = vec4<f32>(load_y(at.x), load_y(at.y), load_y(at.z), load_y(at.w));
                let i = weight_of(step, column);
                weights[j] = vec4<f32>(w[i], w[i + p.k], w[i + 2u * p.k], w[i + 3u * p.k]);
                step = advance(step, 1u);
            }
            add_products(weights, values, local);
            if DEPTH > 4u {
                step = advance(step, DEPTH - 4u);
            }
        }
    }
    store_tile(first, c, local);
}
