//!include conv2d fours nan map step gate activation grid
// x[n,h,w,c] = f(b[c] + sum over r,s,k of y[n,p,q,k] * w[r,s,c,k]) over the (p,q) with p*stride -
//   pad + r*dilation = h, and the same for columns, without groups. This is the gradient of a
//   convolution with respect to its input, and the forward pass of a transposed convolution.
// GATED: x = f'(from gate) * sum, where `gate` (as large as x) is the output of f. An L1 penalty on
//   that output adds to sum, as common/gate.wgsl describes.
// Layouts: y (N,P,Q,K), w (R,S,C,K), b (C), x and gate (N,H,W,C). `y4` and `w4` are `y` and `w`
//   bound as vec4s. VEC_K: K is a multiple of 4. NARROW: C <= 4.
// An implicit matrix product in registers, which maximises arithmetic per load.
// The pixels of an invocation have the same phase (h mod stride, w mod stride), hence the same
//   taps: pixel number = (n, i, j) with h = i*stride_h + phase_h, w = j*stride_w + phase_w. Pixels
//   outside x are not stored.
// Invocation: 8 pixels of x by 8 channels.
// Grid: stride_h*stride_w * ceil(C / 8) * ceil(N*ceil(H/stride_h)*ceil(W/stride_w) / 8)
//   invocations, channels fastest, then pixels.
// Preconditions: `b` is read only if has_bias = 1, `gate` only with GATED; otherwise any buffer of
//   the type can be bound. Channels past C are computed but not stored: their loads may run past
//   the end of `w`, so bounds checks must stay on.
// Twin: Conv2dBwdInput in src/ops/conv2d/cpu.rs.

override ACTIVATION: u32 = 0u;
override GATED: bool = false;
override VEC_K: bool = false;
override NARROW: bool = false;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Map>;
@group(0) @binding(2) var<storage, read> y4: array<Map4>;
@group(0) @binding(3) var<storage, read> w: array<f32>;
@group(0) @binding(4) var<storage, read> w4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> b: array<f32>;
@group(0) @binding(6) var<storage, read> gate: array<Map4>;
@group(0) @binding(7) var<storage, read_write> x: array<Map>;

// Four pixels of x of one phase: their samples and their places in the phase's grid.
struct Pixels {
    n: vec4<i32>,
    i: vec4<i32>,
    j: vec4<i32>,
}

fn locate(pixel: vec4<u32>, rows: u32, columns: u32) -> Pixels {
    let row = pixel / columns;
    let inside = row < vec4<u32>(p.n * rows);
    return Pixels(
        vec4<i32>(row / rows),
        // -2^30 for pixels past the end: outside y whatever a tap adds.
        select(vec4<i32>(-0x40000000), vec4<i32>(row % rows), inside),
        vec4<i32>(pixel % columns),
    );
}

// Number of the pixel of y at (i + down, j + along), or -1 outside y.
fn shifted(pixels: Pixels, down: i32, along: i32) -> vec4<i32> {
    let row = pixels.i + down;
    let column = pixels.j + along;
    let inside = (vec4<u32>(row) < vec4<u32>(p.p)) & (vec4<u32>(column) < vec4<u32>(p.q));
    return select(vec4<i32>(-1), (pixels.n * i32(p.p) + row) * i32(p.q) + column, inside);
}

// Outside the map pixel 0 is read and discarded, which is cheaper than a branch.
fn load_y4(pixel: i32, k: u32) -> vec4<f32> {
    return select(map4(y4[(u32(max(pixel, 0)) * p.k + k) / 4u]), vec4<f32>(0.0), pixel < 0);
}

fn load_y(pixel: i32, k: u32) -> f32 {
    return select(f32(y[u32(max(pixel, 0)) * p.k + k]), 0.0, pixel < 0);
}

fn load_b(c: u32) -> vec4<f32> {
    if p.has_bias == 0u {
        return vec4<f32>(0.0);
    }
    return vec4<f32>(b[c], b[c + 1u], b[c + 2u], b[c + 3u]);
}

// The value stored at element i: f(sum), or with GATED the sum times the slope at the gate.
fn epilogue(i: u32, sum: vec4<f32>) -> vec4<f32> {
    if GATED {
        return gated4(ACTIVATION, p.parameter, sum, gate4_at(i, false));
    }
    return activate4(ACTIVATION, p.parameter, sum);
}

fn store(n: i32, h: u32, column: u32, c: u32, value: vec4<f32>) {
    if u32(n) >= p.n || h >= p.h || column >= p.w || c >= p.c {
        return;
    }
    let i = ((u32(n) * p.h + h) * p.w + column) * p.c + c;
    let v = epilogue(i, value);
    x[i] = Map(v.x);
    if c + 1u < p.c {
        x[i + 1u] = Map(v.y);
    }
    if c + 2u < p.c {
        x[i + 2u] = Map(v.z);
    }
    if c + 3u < p.c {
        x[i + 3u] = Map(v.w);
    }
}

// a bᵀ
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a * b.x, a * b.y, a * b.z, a * b.w);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_invocation(group, groups, local, 64u);
    let rows = (p.h + p.stride_h - 1u) / p.stride_h;
    let columns = (p.w + p.stride_w - 1u) / p.stride_w;
    let blocks = (p.n * rows * columns + 7u) / 8u;
    let c_blocks = (p.c + 7u) / 8u;
    let c = i % c_blocks * 8u;
    let first = i / c_blocks % blocks * 8u;
    let phase = i / (c_blocks * blocks);
    if phase >= p.stride_h * p.stride_w {
        return;
    }
    let phase_h = phase / p.stride_w;
    let phase_w = phase % p.stride_w;
    let pixels0 = locate(first + vec4<u32>(0u, 1u, 2u, 3u), rows, columns);
    let pixels1 = locate(first + vec4<u32>(4u, 5u, 6u, 7u), rows, columns);

    let reach_h = p.r * p.dilation_h;
    let reach_w = p.s * p.dilation_w;
    // sumCP: each of its columns is one of the pixels first + 4P .., and holds channels c + 4C ..
    var sum00 = mat4x4<f32>();
    var sum01 = mat4x4<f32>();
    var sum10 = mat4x4<f32>();
    var sum11 = mat4x4<f32>();
    for (var r = 0u; r < p.r; r++) {
        // Whole strides are added to keep the operand of % positive: OpenGL leaves the remainder of
        // a negative number undefined.
        let down = phase_h + p.pad_h + (reach_h * p.stride_h - r * p.dilation_h);
        if down % p.stride_h != 0u {
            continue;
        }
        for (var s = 0u; s < p.s; s++) {
            let along = phase_w + p.pad_w + (reach_w * p.stride_w - s * p.dilation_w);
            if along % p.stride_w != 0u {
                continue;
            }
            let rows_down = i32(down / p.stride_h) - i32(reach_h);
            let columns_along = i32(along / p.stride_w) - i32(reach_w);
            let source0 = shifted(pixels0, rows_down, columns_along);
            let source1 = shifted(pixels1, rows_down, columns_along);
            let weight = ((r * p.s + s) * p.c + c) * p.k;
            if VEC_K {
                let row = p.k / 4u;
                for (var k = 0u; k < p.k; k += 4u) {
                    let y0 = mat4x4<f32>(
                        load_y4(source0.x, k),
                        load_y4(source0.y, k),
                        load_y4(source0.z, k),
                        load_y4(source0.w, k),
                    );
                    let y1 = mat4x4<f32>(
                        load_y4(source1.x, k),
                        load_y4(source1.y, k),
                        load_y4(source1.z, k),
                        load_y4(source1.w, k),
                    );
                    let i = (weight + k) / 4u;
                    let w0 = transpose(
                        mat4x4<f32>(w4[i], w4[i + row], w4[i + 2u * row], w4[i + 3u * row])
                    );
                    sum00 += w0 * y0;
                    sum01 += w0 * y1;
                    if !NARROW {
                        let w1 = transpose(mat4x4<f32>(
                            w4[i + 4u * row],
                            w4[i + 5u * row],
                            w4[i + 6u * row],
                            w4[i + 7u * row],
                        ));
                        sum10 += w1 * y0;
                        sum11 += w1 * y1;
                    }
                }
            } else {
                for (var k = 0u; k < p.k; k++) {
                    let y0 = vec4<f32>(
                        load_y(source0.x, k),
                        load_y(source0.y, k),
                        load_y(source0.z, k),
                        load_y(source0.w, k),
                    );
                    let y1 = vec4<f32>(
                        load_y(source1.x, k),
                        load_y(source1.y, k),
                        load_y(source1.z, k),
                        load_y(source1.w, k),
                    );
                    let i = weight + k;
                    let w0 = vec4<f32>(w[i], w[i + p.k], w[i + 2u * p.k], w[i + 3u * p.k]);
                    sum00 += outer(w0, y0);
                    sum01 += outer(w0, y1);
                    if !NARROW {
                        let w1 = vec4<f32>(
                            w[i + 4u * p.k],
                            w[i + 5u * p.k],
                            w[i + 6u * p.k],
                            w[i + 7u * p.k],
                        );
                        sum10 += outer(w1, y0);
                        sum11 += outer(w1, y1);
                    }
                }
            }
        }
    }

    let h0 = vec4<u32>(pixels0.i) * p.stride_h + phase_h;
    let h1 = vec4<u32>(pixels1.i) * p.stride_h + phase_h;
    let column0 = vec4<u32>(pixels0.j) * p.stride_w + phase_w;
    let column1 = vec4<u32>(pixels1.j) * p.stride_w + phase_w;
    let bias0 = load_b(c);
    store(pixels0.n[0], h0[0], column0[0], c, sum00[0] + bias0);
    store(pixels0.n[1], h0[1], column0[1], c, sum00[1] + bias0);
    store(pixels0.n[2], h0[2], column0[2], c, sum00[2] + bias0);
    store(pixels0.n[3], h0[3], column0[3], c, sum00[3] + bias0);
    store(pixels1.n[0], h1[0], column1[0], c, sum01[0] + bias0);
    store(pixels1.n[1], h1[1], column1[1], c, sum01[1] + bias0);
    store(pixels1.n[2], h1[2], column1[2], c, sum01[2] + bias0);
    store(pixels1.n[3], h1[3], column1[3], c, sum01[3] + bias0);
    if !NARROW {
        let bias1 = load_b(c + 4u);
        store(pixels0.n[0], h0[0], column0[0], c + 4u, sum10[0] + bias1);
        store(pixels0.n[1], h0[1], column0[1], c + 4u, sum10[1] + bias1);
        store(pixels0.n[2], h0[2], column0[2], c + 4u, sum10[2] + bias1);
        store(pixels0.n[3], h0[3], column0[3], c + 4u, sum10[3] + bias1);
        store(pixels1.n[0], h1[0], column1[0], c + 4u, sum11[0] + bias1);
        store(pixels1.n[1], h1[1], column1[1], c + 4u, sum11[1] + bias1);
        store(pixels1.n[2], h1[2], column1[2], c + 4u, sum11[2] + bias1);
        store(pixels1.n[3], h1[3], column1[3], c + 4u, sum11[3] + bias1);
    }
}
