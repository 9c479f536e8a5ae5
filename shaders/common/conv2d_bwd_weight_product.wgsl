// The product of the conv2d_bwd_weight kernels with tiles: rows are (r,s,c), columns are filters,
// the sum runs over the pixels (n,p,q) of a slice.

override VEC_C: bool = false;
override VEC_K: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Map>;
@group(0) @binding(2) var<storage, read> x4: array<Map4>;
@group(0) @binding(3) var<storage, read> dy: array<Map>;
@group(0) @binding(4) var<storage, read> dy4: array<Map4>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(6) var<storage, read_write> out4: array<Four>;

// The slice that the workgroup sums.
var<private> slice: u32;

// Four rows (r,s,c): the offsets of their taps from p*stride and q*stride, and their channels.
struct Rows {
    down: vec4<u32>,
    along: vec4<u32>,
    c: vec4<u32>,
}

// The four rows from `first` on.
fn locate(first: u32) -> Rows {
    let row = first + vec4<u32>(0u, 1u, 2u, 3u);
    let tap = row / p.c;
    let inside = row < vec4<u32>(p.r * p.s * p.c);
    // 2^30 for rows past the end: outside x whatever a pixel adds.
    let down = select(vec4<u32>(0x40000000u), tap / p.s * p.dilation_h - p.pad_h, inside);
    return Rows(down, tap % p.s * p.dilation_w - p.pad_w, row % p.c);
}

// A term of the sum: a pixel (n,p,q).
struct Step {
    n: u32,
    p: u32,
    q: u32,
}

// The term `by` terms further on.
fn advance(step: Step, by: u32) -> Step {
    var next = step;
    next.q += by;
    // Branch-free. One wrap is enough if `by` is 1.
    let wraps = next.q >= p.q;
    next.q -= select(0u, p.q, wraps);
    next.p += u32(wraps);
    next.n += u32(next.p == p.p);
    next.p = select(next.p, 0u, next.p == p.p);
    if DEPTH > 4u {
        while next.q >= p.q {
            next.q -= p.q;
            next.p++;
            if next.p == p.p {
                next.p = 0u;
                next.n++;
            }
        }
    }
    return next;
}

// Four channels of x under a tap, or 0 outside. Above and left of the input the unsigned
// coordinates wrap to huge values, so that one comparison covers both borders.
fn load_x4(step: Step, down: u32, along: u32, c: u32, inside: bool) -> vec4<f32> {
    let h = step.p * p.stride_h + down;
    let column = step.q * p.stride_w + along;
    let covered = inside && h < p.h && column < p.w;
    let i = ((step.n * p.h + h) * p.w + column) * p.c + c;
    return select(vec4<f32>(0.0), map4(x4[select(0u, i / 4u, covered)]), covered);
}

// One channel of x under a tap, or 0 outside.
fn load_x(step: Step, down: u32, along: u32, c: u32, inside: bool) -> f32 {
    let h = step.p * p.stride_h + down;
    let column = step.q * p.stride_w + along;
    let covered = inside && h < p.h && column < p.w;
    let i = ((step.n * p.h + h) * p.w + column) * p.c + c;
    return select(0.0, f32(x[select(0u, i, covered)]), covered);
}

fn load_dy(pixel: u32, k: u32) -> vec4<f32> {
    let i = pixel * p.k + k;
    if VEC_K {
        return map4(dy4[i / 4u]);
    }
    return vec4<f32>(f32(dy[i]), f32(dy[i + 1u]), f32(dy[i + 2u]), f32(dy[i + 3u]));
}

// Stores four filters of a row.
fn store(row: u32, k: u32, v: vec4<f32>) {
    if row >= p.r * p.s * p.c || k >= p.k {
        return;
    }
    let i = slice * p.slice_stride + row * p.k + k;
    if VEC_K {
        out4[i / 4u] = stored(v);
        return;
    }
    out[i] = v.x;
    if k + 1u < p.k {
        out[i + 1u] = v.y;
    }
    if k + 2u < p.k {
        out[i + 2u] = v.z;
    }
    if k + 3u < p.k {
        out[i + 3u] = v.w;
    }
}

@compute @workgroup_size(SIZE)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(group, groups);
    let k_blocks = (p.k + 4u * COLUMNS - 1u) / (4u * COLUMNS);
    let row_blocks = (p.r * p.s * p.c + ROWS - 1u) / ROWS;
    let k = i % k_blocks * 4u * COLUMNS;
    let first = i / k_blocks % row_blocks * ROWS;
    // The loop below contains barriers, so its bounds must be uniform. Uniformity analysis accepts
    // this local, but not the private variable.
    let number = i / (k_blocks * row_blocks);
    // A folded grid may hold workgroups past the last slice.
    if number >= p.slices {
        return;
    }
    slice = number;
    let rows = locate(first + row_of(local));
    let column = k + column_of(local);
    let begin = number * p.slice_terms;
    let end = min(begin + p.slice_terms, p.n * p.p * p.q);
    var pixel = begin + step_of(local);
    var step = Step(pixel / (p.p * p.q), pixel / p.q % p.p, pixel % p.q);
    for (var done = begin; done < end; done += DEPTH) {
        var values: mat4x4<f32>;
        var grads: mat4x4<f32>;
        for (var j = 0u; j < 4u; j++) {
            // Past the end of the slice x is taken as 0, so any pixel of dy will do.
            let inside = pixel + j < end;
            grads[j] = load_dy(select(0u, pixel + j, inside), column);
            if VEC_C {
                values[j] = load_x4(step, rows.down.x, rows.along.x, rows.c.x, inside);
            } else {
                values[j] = vec4<f32>(
                    load_x(step, rows.down.x, rows.along.x, rows.c.x, inside),
                    load_x(step, rows.down.y, rows.along.y, rows.c.y, inside),
                    load_x(step, rows.down.z, rows.along.z, rows.c.z, inside),
                    load_x(step, rows.down.w, rows.along.w, rows.c.w, inside),
                );
            }
            step = advance(step, 1u);
        }
        add_products(grads, values, local);
        pixel += DEPTH;
        if DEPTH > 4u {
            step = advance(step, DEPTH - 4u);
        }
    }
    store_tile(first, k, local);
}
